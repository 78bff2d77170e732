"""The cheap network that predicts accuracy gradients on the camera."""

from accmpeg.accmodel.card import AccModelCard, read_accmodel_card
from accmpeg.accmodel.runtime import AccModel, Scores

__all__ = ["AccModel", "AccModelCard", "Scores", "read_accmodel_card"]
