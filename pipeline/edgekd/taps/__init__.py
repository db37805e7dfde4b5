"""Features as outputs of a traced graph: find the layers, pair those of student and teacher."""
