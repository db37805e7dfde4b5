"""Machines that artifacts are made for and measured on: their files, instruction sets, and what is known of them."""
