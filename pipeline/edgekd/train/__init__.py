"""Training: one loop for teachers, students and int8 training."""
