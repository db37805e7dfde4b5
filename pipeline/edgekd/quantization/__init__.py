"""Int8: the rules of the quantized graph, int8 training and calibration, sensitivity and repair."""
