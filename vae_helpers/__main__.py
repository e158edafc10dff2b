"""`python -m vae_helpers`, the same as the command `vae-helpers`."""

from .cli import main

if __name__ == "__main__":
    main()
