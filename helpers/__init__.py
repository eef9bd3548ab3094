"""Helpers of the denoising course.

Data flows one way, and no module imports a later one:
`corpus` -> `audio` -> `noise` -> `dataset` -> `losses` -> `models` -> `training` -> `denoise`
-> `baselines` -> `metrics` -> `evaluation` -> `plots` -> `listening`.
Nothing is imported here, so that the command line starts without waiting for TensorFlow.
"""
