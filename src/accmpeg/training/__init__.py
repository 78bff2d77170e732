"""Makes the cheap model of a server DNN: accuracy gradients, label sets of them, and the training.

```python
from accmpeg import training

training.label_footage(["footage/"], dnn="detector.card.toml", out="labels")
card = training.train_accmodel(["labels"], out="cheap.onnx")
```

Importing this needs no PyTorch; labels and training do (`pip install 'accmpeg[server,train]'`).
"""

from typing import TYPE_CHECKING

from accmpeg.lazy import lazily

if TYPE_CHECKING:
    from accmpeg.accmodel.card import AccModelCard
    from accmpeg.training.build import checkpoint_path, train_accmodel
    from accmpeg.training.fitting import Progress
    from accmpeg.training.labelling import LabelReport, label_footage
    from accmpeg.training.labels import Label, LabelItem, LabelSet, read_labels
    from accmpeg.training.settings import LabelSettings, LossWeights, Sampling, TrainingSettings
else:
    __getattr__, __dir__ = lazily(__name__)

__all__ = [
    "AccModelCard",
    "Label",
    "LabelItem",
    "LabelReport",
    "LabelSet",
    "LabelSettings",
    "LossWeights",
    "Progress",
    "Sampling",
    "TrainingSettings",
    "checkpoint_path",
    "label_footage",
    "read_labels",
    "train_accmodel",
]
