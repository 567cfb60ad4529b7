"""The proxy route that boards post their windows through: made once, known by its alias."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from judder.ingest import TOKEN_HEADER
from judder.notehub import Members, Notehub, NotehubError, UncertainError

ALIAS = "ingest"
ATTEMPTS = 3


@dataclass(frozen=True)
class Outcome:
    """`did` is created, changed, or nothing; `differs` names what was, or still is, other than it should be."""

    did: str
    differs: tuple[str, ...] = ()


def proxy(url: str, token: str, alias: str = ALIAS) -> dict[str, Any]:
    """The route as Notehub takes it."""
    headers = {TOKEN_HEADER: token} if token else {}
    return {
        "type": "proxy",
        "label": f"judder {alias}",
        "proxy": {"url": url, "alias": alias, "fleets": [], "http_headers": headers},
    }


def without_token(route: Any) -> dict[str, Any]:
    """A route as it can be shown."""
    headers = {
        name: "***" if name.lower() == TOKEN_HEADER.lower() else value
        for name, value in route["proxy"]["http_headers"].items()
    }
    return {**route, "proxy": {**route["proxy"], "http_headers": headers}}


async def bring(hub: Notehub, wanted: Mapping[str, Any], *, change: bool = False) -> Outcome:
    """Create the route if there is none of its alias; one that differs is only told of, unless it is to be changed."""
    for attempt in range(ATTEMPTS):
        existing = await find(hub, str(wanted["proxy"]["alias"]))
        try:
            if existing is None:
                await hub.create_route(wanted)
                return Outcome("created")
        except UncertainError:
            if attempt == ATTEMPTS - 1:
                raise
        else:
            differs = differences(existing, wanted)
            if not (differs and change):
                return Outcome("nothing", tuple(differs))
            await hub.change_route(str(existing["uid"]), _merged(existing, wanted))
            return Outcome("changed", tuple(differences(existing, wanted, changed=True)))
    raise AssertionError


async def find(hub: Notehub, alias: str) -> Members | None:
    """The proxy route of that alias. Raises NotehubError if there are several."""
    found = []
    for one in await hub.routes():
        if one.get("type") == "proxy":
            route = await hub.route(str(one["uid"]))
            if (route.get("proxy") or {}).get("alias") == alias:
                found.append(route)
    if len(found) > 1:
        raise NotehubError(f"the project has {len(found)} routes with the alias {alias}: delete all but one in Notehub")
    return found[0] if found else None


def differences(existing: Members, wanted: Members, *, changed: bool = False) -> list[str]:
    """What is, or until it was `changed`, was not as wanted, without secrets. Headers not ours may be anything."""
    leads, has, is_ = ("led", "had", "was") if changed else ("leads", "has", "is")
    found = []
    now, new = existing["proxy"], wanted["proxy"]
    if str(now.get("url", "")).rstrip("/") != str(new["url"]).rstrip("/"):
        found.append(f"it {leads} to {now.get('url')} and not to {new['url']}")
    headers = {str(name).lower(): value for name, value in (now.get("http_headers") or {}).items()}
    if headers.get(TOKEN_HEADER.lower()) != new["http_headers"].get(TOKEN_HEADER):
        given = "another token" if TOKEN_HEADER.lower() in headers else "no token"
        found.append(f"its header {TOKEN_HEADER} {has} {given}")
    if now.get("fleets"):
        found.append(f"it {is_} for some fleets only")
    if existing.get("disabled"):
        found.append(f"it {is_} disabled")
    return found


def _merged(existing: Members, wanted: Members) -> dict[str, Any]:
    """With the label and the headers that are somebody else's."""
    kept = {
        name: value
        for name, value in (existing["proxy"].get("http_headers") or {}).items()
        if name.lower() != TOKEN_HEADER.lower()
    }
    proxy = existing["proxy"] | wanted["proxy"] | {"http_headers": kept | wanted["proxy"]["http_headers"]}
    return {"type": "proxy", "label": existing.get("label") or wanted["label"], "disabled": False, "proxy": proxy}
