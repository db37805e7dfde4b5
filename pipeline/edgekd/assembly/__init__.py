"""What several stages share: networks, graphs, images, views, teachers."""
