"""What a welcome offers to cameras that need only an address: the site's profile and an AccModel."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from accmpeg.accmodel.card import card_path, read_accmodel_card, verified_weights
from accmpeg.accmodel.inspection import check_onnx
from accmpeg.errors import UsageError
from accmpeg.options import parse_bitrate, parse_size, read_site
from accmpeg.protocol.wire import Offer, OfferedAccModel, OfferedProfile
from accmpeg.server.models import ModelIdentity

__all__ = ["Announcement", "announce"]


@dataclass(frozen=True)
class Announcement:
    """An offer, the DNN that it was made for, and the ONNX bytes of its AccModel."""

    offer: Offer
    made_for: ModelIdentity
    weights: bytes = b""

    def offer_of(self, dnn: ModelIdentity) -> Offer | None:
        """What to offer to a camera of this DNN: nothing for another one, nor for one put in its place."""
        same = (dnn.card, dnn.sha256) == (self.made_for.card, self.made_for.sha256)
        return self.offer if same else None


def announce(
    site_profile: Path | None, accmodel: Path | None, dnns: list[ModelIdentity]
) -> Announcement | None:
    """Reads and checks what there is to offer to cameras of one of these DNNs; None if that is nothing.

    Raises UsageError for a profile or an AccModel that is for none of the DNNs, or that no camera would take;
    CardError or WeightsError for an AccModel that can't be read.
    """
    if site_profile is None and accmodel is None:
        return None
    profile = offered = made_for = None
    weights = b""
    if site_profile is not None:
        profile, made_for = _profile(site_profile, dnns)
        if profile.policy in ("graded", "binary") and accmodel is None:
            raise UsageError(f"--site-profile {site_profile} steers by an AccModel: give --accmodel")
    if accmodel is not None:
        offered, weights, made_for = _accmodel(accmodel, dnns if made_for is None else [made_for])
    assert made_for is not None
    return Announcement(
        Offer(dnn_sha256=made_for.sha256, profile=profile, accmodel=offered), made_for, weights
    )


def _profile(path: Path, dnns: list[ModelIdentity]) -> tuple[OfferedProfile, ModelIdentity]:
    option = f"--site-profile {path}"
    document = read_site(path, "--site-profile")
    record = document.get("profile")
    if not isinstance(record, dict):
        raise UsageError(f"{option} has no [profile] table: make one with accmpeg profile")
    made_for = _served(option, record.get("dnn"), record.get("dnn-sha256"), dnns)
    fields: dict[str, Any] = {
        "source_px": parse_size(str(record.get("source")), f"{option}: source"),
        "max_bitrate_bps": None,
    }
    if "size" in document:
        fields["size_px"] = parse_size(str(document["size"]), f"{option}: size")
    if "max-bitrate" in document:
        fields["max_bitrate_bps"] = parse_bitrate(str(document["max-bitrate"]), f"{option}: max-bitrate")
    taken = {name.replace("_", "-"): name for name in OfferedProfile.model_fields if name not in fields}
    fields |= {name: document[key] for key, name in taken.items() if key in document}
    try:
        return OfferedProfile(**fields), made_for
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        key = str(problem["loc"][0]).replace("_", "-")
        raise UsageError(f"{option}: {key}: {problem['msg']}") from error


def _accmodel(path: Path, dnns: list[ModelIdentity]) -> tuple[OfferedAccModel, bytes, ModelIdentity]:
    option = f"--accmodel {path}"
    file, card = card_path(path), read_accmodel_card(path)
    weights = verified_weights(card, file)
    made_for = _served(option, card.dnn.name, card.dnn.sha256, dnns)
    check_onnx(weights)
    try:
        offered = OfferedAccModel(
            name=card.name,
            sha256=card.sha256,
            size_bytes=len(weights),
            card=file.read_text(encoding="utf-8-sig"),
        )
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        raise UsageError(
            f"{option} can't be offered: {problem['loc'][0]}: {problem['msg'].lower()}"
        ) from error
    return offered, weights, made_for


def _served(option: str, name: object, sha256: object, dnns: list[ModelIdentity]) -> ModelIdentity:
    """The DNN that something was made for; where both hashes are known they decide, not the names."""
    for dnn in dnns:
        if sha256 == dnn.sha256 if sha256 and dnn.sha256 else name == dnn.card:
            return dnn
    served = ", ".join(each.card for each in dnns)
    known = any(name == each.card for each in dnns)
    other = "which has other weights here" if known else f"and here it is {served}"
    raise UsageError(
        f"{option} was made for the server DNN {name}, {other}: make one for this DNN, or serve that one"
    )
