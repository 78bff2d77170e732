"""AccMPEG: video streams whose macroblock quality follows the accuracy of a server DNN."""

__version__ = "0.1.0"
