"""amenable: from raw text to an assistant that people prefer."""

__version__ = "0.1.0"
