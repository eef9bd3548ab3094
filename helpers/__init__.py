"""Helpers of the denoising course; README.md beside this file says which wing is for what.

Data flows one way: ground, `data`, `models`, `denoise`, `evaluation`, `display`, `tool`, and the
command line on top. Nothing is imported here, so that the command line starts without TensorFlow.
"""
