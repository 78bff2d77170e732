"""What servers say of themselves, as `/v1/cameras` gives it, and several of them as one."""

from collections.abc import Mapping
from typing import Any

__all__ = ["cameras_of", "joined"]


def cameras_of(statuses: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """Every camera once, with the name of the server that has it or had it last, by the camera's name."""
    best: dict[str, tuple[str, dict[str, Any]]] = {}
    for server, status in statuses.items():
        for camera in status["cameras"]:
            known = best.get(camera["name"])
            if known is None or _here(camera) > _here(known[1]):
                best[camera["name"]] = (server, camera)
    return [each for _, each in sorted(best.items())]


def joined(statuses: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The statuses of one server's parts, by their names, as if there were one server."""
    parts = list(statuses.values())
    problems = [each["problem"] for each in parts]
    return {
        "software": parts[0]["software"],
        "uptime_s": max(each["uptime_s"] for each in parts),
        "draining": all(each["draining"] for each in parts),
        "problem": "; ".join(dict.fromkeys(problems)) if all(problems) else "",
        "cameras": [camera for _, camera in cameras_of(statuses)],
        "workers": [
            {**worker, "worker": f"{name} {worker['worker']}"}
            for name, each in statuses.items()
            for worker in each["workers"]
        ],
    }


def _here(camera: Mapping[str, Any]) -> tuple[bool, float]:
    age_s = camera["last_frame_age_s"]
    return camera["connected"], -(age_s if age_s is not None else float("inf"))
