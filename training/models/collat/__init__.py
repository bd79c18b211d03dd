"""CoLLAT (Silva et al., NeurIPS 2023): sounds as the input of a locked text encoder."""
