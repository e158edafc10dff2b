"""Variational autoencoders, in the open: the package behind the notebook series *Dogs in latent space*."""
