"""Training: one loop for teachers, students and quantization-aware training."""
