"""Parts that several stages share: networks, graphs, samples, views, teachers."""
