"""What a GPU machine needs and must show: bundles for machines without a network, a model of random weights, checks."""
