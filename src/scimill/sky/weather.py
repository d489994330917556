"""Times, places and skies of the frames of a synthetic deployment."""

import dataclasses
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from scimill.errors import ConfigError
from scimill.parallel.streams import block_stream, campaign_stream
from scimill.sky import CAMPAIGN
from scimill.sky.exchange.nodes import ALWAYS, Node, Nodes, read_time
from scimill.sky.kernels import camera, clouds, solar
from scimill.sky.kernels.camera import Box
from scimill.sky.params import SceneConfig

SECOND = 10**9  # ns
QUANTILES = 4096
COVER_PERIODS = (0.37, 0.91, 2.3)  # days
PLACES = (
    # vsn, latitude, longitude, altitude; W056 before it moved
    ("W056", 41.718, -87.982, 222.0),
    ("W02D", 41.701, -87.995, 225.0),
    ("V017", 39.102, -96.609, 415.0),
)
W056_MOVED_TO = (32.87, -117.25, 110.0)  # coordinates of the city


@dataclasses.dataclass(frozen=True)
class Shot:
    """One frame: its node, time, pointing and sky."""

    item: int
    node: int
    vsn: str
    node_id: str
    time: int
    position: int
    sun_elevation: float
    sky: clouds.Sky


class Deployment:
    """All frames of a synthetic deployment, each computed on request.

    Parameters
    ----------
    config : its parameters.

    Raises
    ------
    ConfigError : `start` is not a date.

    """

    def __init__(self, config: SceneConfig) -> None:
        self.config = config
        try:
            self.start = read_time(config.start)
        except ValueError as error:
            raise ConfigError(f"start: {error}", allowed="a UTC date such as 2023-05-10T00:00:00Z") from None
        stream = campaign_stream(config.seed, CAMPAIGN.number)
        self._phases = stream.random((config.nodes, len(COVER_PERIODS)))
        self._offsets = stream.uniform(0, clouds.EXTENT, (config.nodes, 2))
        self._winds = stream.uniform(-12, 12, (config.nodes, 2))  # m/s
        self._shifts = stream.uniform(-0.03, 0.03, (config.nodes, 2))
        self._field_seed = int(stream.integers(2**63))

    @property
    def count(self) -> int:
        """Number of frames over all nodes."""
        return self.config.nodes * self.config.frames

    @cached_property
    def field(self) -> NDArray[np.float32]:
        """The cloud field, which all nodes share."""
        return clouds.cloud_field(np.random.default_rng(self._field_seed), self.config.field_size)

    @cached_property
    def _quantiles(self) -> NDArray[np.float64]:
        quantiles: NDArray[np.float64] = np.quantile(self.field, np.linspace(0, 1, QUANTILES + 1))
        return quantiles

    def box(self, node: int) -> Box:
        """Return where the thermal field of view of a node lies in its optical image."""
        x, y = self._shifts[node].tolist()
        left, top, right, bottom = camera.PUBLISHED_BOX
        return (left + x, top + y, right + x, bottom + y)

    def nodes(self, *, aligned: bool) -> Nodes:
        """Make the table of nodes; the first node moves halfway through the deployment."""
        rows = []
        for number in range(self.config.nodes):
            vsn, latitude, longitude, altitude = place(number)
            box = self.box(number) if aligned else None
            first = Node(vsn, node_id(number), latitude, longitude, altitude, box=box)
            if number:
                rows.append(first)
                continue
            move = self.start + self._loops // 2 * self._interval
            rows.append(dataclasses.replace(first, valid=(ALWAYS[0], move)))
            latitude, longitude, altitude = W056_MOVED_TO
            moved = Node(vsn, node_id(number), latitude, longitude, altitude, (move, ALWAYS[1]), box=box)
            rows.append(moved)
        return Nodes(rows)

    @property
    def _interval(self) -> int:
        return round(self.config.interval * SECOND)

    @property
    def _loops(self) -> int:
        return -(-self.config.frames // self.config.positions)

    def shot(self, item: int) -> Shot:
        """Return a frame by number."""
        node, frame = divmod(item, self.config.frames)
        loop, turn = divmod(frame, self.config.positions)
        delay = int(block_stream(self.config.seed, CAMPAIGN.number, item).integers(SECOND))
        time = self.start + loop * self._interval + turn * self._interval // self.config.positions + delay
        vsn = place(node)[0]
        where = self._node_table.at(vsn, time)
        assert where is not None  # the table covers all times
        elevation = float(solar.elevation(time, where.latitude, where.longitude))
        noon = (time / solar.NANOSECONDS_PER_DAY + where.longitude / 360.0) % 1.0  # accurate enough for a synthetic sun
        sky = self._sky(node, time, (360.0 * noon, elevation))
        return Shot(item, node, vsn, node_id(node), time, 1 + 4 * turn, elevation, sky)

    @cached_property
    def _node_table(self) -> Nodes:
        return self.nodes(aligned=False)

    def _sky(self, node: int, time: int, sun: tuple[float, float]) -> clouds.Sky:
        days = (time - self.start) / solar.NANOSECONDS_PER_DAY
        waves = np.sin(2 * np.pi * (days / np.array(COVER_PERIODS) + self._phases[node]))
        cover = float(np.clip(0.5 + 0.3 * waves.sum(), 0.02, 0.98))
        east, north = (self._offsets[node] + self._winds[node] * days * 86_400).tolist()
        return clouds.Sky(
            cover=cover,
            threshold=float(np.interp(1 - cover, np.linspace(0, 1, QUANTILES + 1), self._quantiles)),
            base=1500.0 + 700.0 * float(waves[0]),
            air=14.0 + 7.0 * float(np.sin(np.radians(sun[1]))) + 3.0 * float(waves[2]),
            sun=sun,
            shift=(east, north),
        )


def place(node: int) -> tuple[str, float, float, float]:
    """Return name, latitude, longitude and altitude of a node by number."""
    if node < len(PLACES):
        return PLACES[node]
    return (f"W{node + 128:03X}", 30.0 + node / 4, -80.0 - node / 3, 100.0)


def node_id(node: int) -> str:
    """Return the id of a node by number: sixteen hexadecimal digits."""
    return f"{0x000048B02D3AE200 + node:016x}"
