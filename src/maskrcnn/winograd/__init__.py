"""An optional backend: 3x3 convolutions on a CPU with a quarter of the products, by Winograd's algorithm.

The rest of the package reaches it in four places:

    winograd.training.accelerate(model)    replaces the large 3x3 convolutions of a model that trains
    deploy.winograd.split(model)           graphs without these convolutions, and their weights, for a bundle
    winograd.inference.read(path, ...)     completes the graphs of such a bundle, for fp32
    winograd.completed.completed(...)      puts the plain convolutions into the graphs, for half precision

docs/experiments/winograd.md gives the gain on each processor.
"""
