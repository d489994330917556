"""Installed campaigns, scimill's own and others, found by their entry points."""

import functools
import importlib
import importlib.metadata
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace

import click

from scimill.campaign import GROUP, OWN_PACKAGE, RESERVED_NUMBERS, Campaign
from scimill.errors import ConfigError


@dataclass(frozen=True)
class Plugin:
    """An installed campaign, or why it cannot be used.

    Parameters
    ----------
    name : its name, which is that of its entry point.
    package : name and version of its distribution.
    campaign : the campaign, unless it cannot be used.
    failure : why it cannot be used, in one line.

    """

    name: str
    package: str
    campaign: Campaign | None = None
    failure: str = ""

    @property
    def is_own(self) -> bool:
        """Whether scimill ships it."""
        return self.package.split(" ")[0] == OWN_PACKAGE

    @property
    def help(self) -> str:
        """One line for ``scimill --help``."""
        return self.campaign.help if self.campaign else f"cannot be used: {self.failure}"

    def load(self) -> Campaign:
        """Return the campaign.

        Raises
        ------
        ConfigError : it cannot be used.
        """
        if self.campaign is None:
            raise self._refusal(self.failure)
        return self.campaign

    def commands(self) -> click.Command:
        """Import its commands.

        Raises
        ------
        ConfigError : they cannot be imported.
        """
        module = f"{self.load().package}.commands"
        try:
            command: click.Command = getattr(importlib.import_module(module), self.name)
        except Exception as error:
            raise self._refusal(f"importing {module} failed: {_describe(error)}") from error
        return command

    def _refusal(self, reason: str) -> ConfigError:
        remedy = "install what is missing, or uninstall or repair the package"
        return ConfigError(f"campaign {self.name}: {reason}", where=f"package {self.package}", remedy=remedy)


@functools.cache
def installed() -> dict[str, Plugin]:
    """Return all installed campaigns by name: ours in the order of their numbers, then others by name."""
    plugins = [_load(point) for point in importlib.metadata.entry_points(group=GROUP)]
    checked = list(_refuse_conflicts(plugins))
    return {plugin.name: plugin for plugin in sorted(checked, key=_order)}


def _order(plugin: Plugin) -> tuple[int, str]:
    number = plugin.campaign.number if plugin.campaign else RESERVED_NUMBERS
    return min(number, RESERVED_NUMBERS), plugin.name


def _load(point: importlib.metadata.EntryPoint) -> Plugin:
    package = f"{point.dist.name} {point.dist.version}" if point.dist else "unknown"
    try:
        campaign = point.load()
    except Exception as error:  # a broken third-party module must not affect other commands
        return Plugin(point.name, package, failure=f"importing {point.value} failed: {_describe(error)}")
    if not isinstance(campaign, Campaign) or campaign.name != point.name:
        failure = f"entry point {point.name} must name a scimill.campaign.Campaign of the same name"
        return Plugin(point.name, package, failure=failure)
    plugin = Plugin(point.name, package, campaign)
    number: object = campaign.number
    if not plugin.is_own and not (isinstance(number, int) and RESERVED_NUMBERS <= number < 2**32):
        failure = f"its stream number is {number}; allowed: whole numbers from {RESERVED_NUMBERS} to {2**32 - 1}"
        return Plugin(point.name, package, failure=failure)
    return plugin


def _refuse_conflicts(plugins: list[Plugin]) -> Iterator[Plugin]:
    """Mark campaigns that share a name or a stream number as unusable."""
    owners: dict[object, list[Plugin]] = defaultdict(list)
    for plugin in plugins:
        owners[plugin.name].append(plugin)
        if plugin.campaign:
            owners[plugin.campaign.number].append(plugin)
    for plugin in plugins:
        number = plugin.campaign.number if plugin.campaign else None
        for what, key in (("name", plugin.name), ("stream number", number)):
            sharing = owners.get(key, [])
            if len(sharing) > 1:
                packages = " and ".join(sorted(other.package for other in sharing))
                failure = f"packages {packages} both have a campaign with the {what} {key}"
                yield replace(plugin, campaign=None, failure=failure)
                break
        else:
            yield plugin


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
