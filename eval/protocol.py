"""The protocol of a score: everything that must be equal before two scores may stand in one table."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from eval.json_files import without_nan
from lisa_video.errors import UserError


def protocol_id(protocol: Mapping[str, Any]) -> str:
    """Twelve hexadecimal digits that stand for a protocol: start of the sha256 of its canonical JSON."""
    canonical = json.dumps(protocol, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()[:12]


@dataclass(frozen=True)
class UnderProtocol:
    """Results of any kind, with everything that the numbers depend on."""

    protocol: dict[str, Any]

    @property
    def protocol_id(self) -> str:
        """Short name of the protocol."""
        return protocol_id(self.protocol)

    def to_json(self) -> dict[str, Any]:
        """JSON values; NaN becomes null."""
        values: dict[str, Any] = without_nan({"protocol_id": self.protocol_id, **asdict(self)})
        return values


def require_same_protocol(protocols: Sequence[Mapping[str, Any]]) -> None:
    """Refuse to compare scores of different protocols.

    Raises:
        UserError: two protocols differ; names the items.
    """
    for other in protocols[1:]:
        first = protocols[0]
        different = sorted(
            key for key in {*first, *other} if key not in first or key not in other or first[key] != other[key]
        )
        if different:
            raise UserError(
                f"scores of protocols {protocol_id(first)} and {protocol_id(other)} cannot stand in one table: "
                f"they differ in {', '.join(different)}",
                remedy="evaluate both arms again with the same clips, seeds, guidance, detector and extractor",
            )


def clips_digest(clip_ids: Sequence[str]) -> str:
    """`sha256:...` of the sorted clip names: the same clips give the same digest in any order."""
    return "sha256:" + hashlib.sha256("\n".join(sorted(clip_ids)).encode()).hexdigest()
