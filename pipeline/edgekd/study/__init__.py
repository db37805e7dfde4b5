"""Studies: several pairs of teacher and student, several methods, several seeds, each a recipe of its own."""
