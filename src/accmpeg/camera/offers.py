"""What the server offers in its welcome: looked up, fetched, checked, and adopted, on a thread of its own.

```
welcome ─▶ take ─▶ profile ─▶ does it fit this camera? ───────────────────▶ adopt
                   AccModel ─▶ cache, else HTTP ─▶ hash, operators, trials ───┘
```
A server may be hostile or wrong: what does not pass is one line in the log, and the camera goes on as it is.
"""

import hashlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import av
import numpy as np

from accmpeg.accmodel.card import AccModelCard
from accmpeg.accmodel.inspection import check_onnx
from accmpeg.accmodel.runtime import AccModel, Scores
from accmpeg.accmodel.trial import grey_frame, try_apart
from accmpeg.camera.cache import OfferCache
from accmpeg.camera.options import CameraOptions
from accmpeg.camera.stats import CameraStats
from accmpeg.camera.uplink.address import ServerAddress
from accmpeg.camera.uplink.fetch import fetch
from accmpeg.dnn.card import parse_card
from accmpeg.errors import AccModelError, AccmpegError, LinkError, UsageError, WeightsError
from accmpeg.media.encoder import Encoder, EncoderSettings
from accmpeg.media.grid import MacroblockGrid
from accmpeg.media.source import SourceInfo
from accmpeg.protocol.wire import Offer, OfferedAccModel, OfferedProfile
from accmpeg.steering.encoder import Scorer

__all__ = ["Adopted", "OfferTaker"]

LONG_SIDE_LIMIT_PX = 1280
"""AccModels read 640 pixels; one that asks for far more is a burden, whatever it was meant for."""
AGAIN_S = 60.0
"""An AccModel that could not be fetched is tried for again after so long, and at each welcome."""
MOST_OFFERS, OFFERS_S = 6, 60.0
"""No more offers than that are looked at in so long."""
_PROFILE_FIELDS = (
    "size_px", "b_frames", "mbtree_frames", "preset", "aq_mode", "every", "map_strength", "map_margin",
)  # fmt: skip

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Adopted:
    """What the camera shall do from now on."""

    settings: EncoderSettings
    accmodel: Scorer | None
    options: CameraOptions


class OfferTaker(threading.Thread):
    """Begins with what the cache has of this server, then takes each welcome's offer; no offer undoes it.

    Args:
        server: Where AccModels are fetched.
        options: The camera's own; `adopts` says what an offer may change.
        info: Its source.
        bitrate_bps: Of the encoder that an offer is tried with.
        cache: Of this server's offers.
        adopt: Called on this thread with what is to be done.
        stats: Where `offer` says how it went.
    """

    def __init__(
        self,
        server: ServerAddress,
        options: CameraOptions,
        info: SourceInfo,
        bitrate_bps: int,
        cache: OfferCache,
        adopt: Callable[[Adopted], None],
        stats: CameraStats,
    ) -> None:
        super().__init__(name="offers", daemon=True)
        self._server = server
        self._own = options
        self._info = info
        self._bitrate_bps = bitrate_bps
        self._cache = cache
        self._adopt = adopt
        self._stats = stats
        self._newest: tuple[Offer | None] | None = None
        self._wake, self._ended = threading.Event(), threading.Event()
        self._judged_s: deque[float] = deque(maxlen=MOST_OFFERS)
        self._judged: Offer | None = None
        """The last one, whether adopted or refused."""
        self._again = False
        """It could not be fetched, which may be over later."""

    def take(self, offer: Offer | None) -> None:
        """What a welcome offers, in place of what waits; never waits itself."""
        self._newest = (offer,)
        self._wake.set()

    def end(self) -> None:
        """No more offers matter."""
        self._ended.set()
        self._wake.set()
        if self.ident is not None:
            self.join(3.0)

    def run(self) -> None:
        remembered = self._cache.offer()
        if remembered is not None:
            self._judge(remembered)
        while True:
            self._wake.wait(AGAIN_S if self._again else None)
            self._rest()
            self._wake.clear()
            if self._ended.is_set():
                return
            (offer,) = self._newest or (remembered,)
            if self._again or offer != self._judged:
                self._judge(offer)

    def _rest(self) -> None:
        """Offers that change without end cost fetches, trials and keyframes; the newest can wait."""
        if len(self._judged_s) < MOST_OFFERS:
            return
        left_s = self._judged_s[0] + OFFERS_S - time.monotonic()
        if left_s > 0 and not self._ended.is_set():
            log.warning("offers change too often", extra={"next_in_s": round(left_s)})
            self._ended.wait(left_s)

    def _judge(self, offer: Offer | None) -> None:
        self._judged, self._again = offer, False
        self._judged_s.append(time.monotonic())
        try:
            adopted = self._adopted(offer)
            self._adopt(adopted)
        except Exception as error:
            self._again = isinstance(error, LinkError)
            reason = str(error) if isinstance(error, AccmpegError) else f"{type(error).__name__}: {error}"
            reason = " ".join(reason.split())[:500]  # one line, whatever a server wrote into its card
            self._stats.set(offer=f"refused: {reason}")
            log.warning("offer refused", extra={"server": self._server.url, "reason": reason})
            return
        try:
            self._cache.remember(offer)
        except OSError as error:
            log.warning("offer not kept for the next start", extra={"reason": error.strerror})
        self._stats.set(offer="none" if offer is None else "adopted")
        log.info(
            "offer adopted",
            extra={
                "size": f"{adopted.settings.width_px}x{adopted.settings.height_px}",
                "policy": adopted.options.policy,
                "accmodel": adopted.accmodel is not None,
            },
        )

    def _adopted(self, offer: Offer | None) -> Adopted:
        """Raises what is wrong with the offer: LinkError where it can be tried again."""
        options, model = self._own, None
        if offer is not None:
            profile = self._fitting(offer.profile)
            policy = "graded" if offer.accmodel is not None else options.policy
            if profile is not None and profile.policy is not None:
                policy = profile.policy
            if offer.accmodel is not None and policy != "none":
                model = self._model(offer.accmodel, offer.dnn_sha256)
            if policy in ("graded", "binary") and model is None:
                raise UsageError(f"the profile steers by {policy} maps, and no AccModel is offered")
            options = replace(options, policy=policy, **self._changes(profile))
        settings = options.encoder_settings(
            self._info, self._bitrate_bps, steerable=model is not None or options.follows_answers
        )
        Encoder(settings).close()
        if model is not None:
            self._try(model, settings, options.every)
        return Adopted(settings, model and _Guarded(model), options)

    def _fitting(self, profile: OfferedProfile | None) -> OfferedProfile | None:
        """The profile, if it is for frames of this camera's size; an AccModel suits any size."""
        source_px = self._info.width_px, self._info.height_px
        if profile is not None and profile.source_px != source_px:
            sizes = ["{}x{}".format(*size) for size in (profile.source_px, source_px)]
            log.warning("offered profile is for other frames", extra={"its": sizes[0], "this": sizes[1]})
            return None
        if profile is not None and profile.size_px is not None:
            (width_px, height_px), (most_px, highest_px) = profile.size_px, source_px
            if width_px > most_px or height_px > highest_px:
                raise UsageError("the profile's stream is larger than the frames of this camera")
        return profile

    def _changes(self, profile: OfferedProfile | None) -> dict[str, Any]:
        """Of the profile's fields those that this camera was told nothing about."""
        if profile is None:
            return {}
        found = {name: getattr(profile, name) for name in _PROFILE_FIELDS}
        if profile.max_bitrate_bps is not None:
            found["highest_bps"] = max(profile.max_bitrate_bps, self._own.lowest_bps)
        return {name: value for name, value in found.items() if name in self._own.adopts}

    def _model(self, offered: OfferedAccModel, dnn_sha256: str | None) -> AccModel:
        where = f"the AccModel offered by {self._server.url}"
        card = parse_card(AccModelCard, offered.card, where)
        if card.sha256 != offered.sha256:
            raise WeightsError(f"{where} has a card for other weights")
        if card.dnn.sha256 is not None and dnn_sha256 not in (None, card.dnn.sha256):
            raise WeightsError(f"{where} is for another server DNN, {card.dnn.name}")
        if card.long_side_px > LONG_SIDE_LIMIT_PX:
            raise AccModelError(f"{where} reads {card.long_side_px} pixels, above {LONG_SIDE_LIMIT_PX}")
        weights = self._cache.weights(offered.sha256)
        if weights is not None:
            check_onnx(weights)
            return AccModel.of_weights(card, weights, where)
        weights = fetch(self._server, f"accmodel/{offered.sha256}", offered.size_bytes)
        if hashlib.sha256(weights).hexdigest() != offered.sha256:
            raise WeightsError(f"{where} is not what was offered (sha256 differs)")
        check_onnx(weights)
        try_apart(card, weights, (self._info.width_px, self._info.height_px), where)
        model = AccModel.of_weights(card, weights, where)
        try:
            self._cache.keep(offered.sha256, weights)
        except OSError as error:
            log.warning("AccModel not kept for the next start", extra={"reason": error.strerror})
        return model

    def _try(self, model: AccModel, settings: EncoderSettings, every: int) -> None:
        """One that fails or never ends must do so here, and one that holds frames up be left alone."""
        frame = grey_frame(settings.width_px, settings.height_px)
        _check(model.predict(frame), frame)
        started_s = time.perf_counter()
        model.predict(frame)
        taken_s = time.perf_counter() - started_s
        between_s = every / float(settings.frame_rate)
        if taken_s > between_s:
            raise AccModelError(
                f"the AccModel {model.card.name} takes {1000 * taken_s:.0f} ms for a map, and one is due "
                f"every {1000 * between_s:.0f} ms"
            )


class _Guarded:
    """An AccModel from elsewhere: one that fails on some frame ends no stream, and steers no more."""

    def __init__(self, model: AccModel) -> None:
        self._model = model
        self._failed = False
        self.object_threshold = model.object_threshold

    def predict(self, frame: av.VideoFrame) -> Scores:
        if not self._failed:
            try:
                return _check(self._model.predict(frame), frame)
            except Exception as error:
                self._failed = True
                log.warning("offered AccModel given up", extra={"reason": str(error)[:500]})
        flat = np.zeros(MacroblockGrid(frame.width, frame.height).shape, np.float32)
        return Scores(flat, flat if "objects" in self._model.card.outputs else None)


def _check(scores: Scores, frame: av.VideoFrame) -> Scores:
    shape = MacroblockGrid(frame.width, frame.height).shape
    for scored in (scores.accgrad, scores.objects):
        if scored is not None and (scored.shape != shape or not np.isfinite(scored).all()):
            raise AccModelError("the AccModel gives no number for each macroblock")
    return scores
