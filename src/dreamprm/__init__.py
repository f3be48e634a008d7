"""DreamPRM: multimodal process reward models with learned domain weights."""

__version__ = "0.1.0"
