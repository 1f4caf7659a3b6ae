"""Remembers what pure readers of text have given for a text: the programs read each address and report many times.

It makes the simulation twice as fast and changes nothing: the functions depend on what is remembered with them alone.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from types import SimpleNamespace

import contract.decode
import contract.report
import controller.choice.accept
import controller.choice.conditions
import controller.choice.expiry
import controller.choice.gateways
import controller.choice.reading
import controller.choice.snapshot
import controller.choice.validate

_SIZE = 4096
_installed = []


def install():
    """Put the memories in, once."""
    if _installed:
        return
    _installed.append(True)
    plain = {name: getattr(ipaddress, name) for name in dir(ipaddress) if not name.startswith("__")}
    readers = {name: lru_cache(_SIZE)(plain[name]) for name in ("ip_address", "ip_interface", "ip_network")}
    remembering = SimpleNamespace(**{**plain, **readers})
    for module in (contract.decode, controller.choice.gateways, controller.choice.reading):
        module.ipaddress = remembering
    _replace("host_address", contract.decode, contract.report, controller.choice.validate)
    readers_of = (controller.choice.snapshot, controller.choice.accept, controller.choice.validate)
    _replace("canonical", controller.choice.reading, *readers_of)
    _replace("decode_report", contract.report, controller.choice.conditions)
    _replace("decode_assignment", controller.choice.reading)
    _replace_by_identity()


def _replace_by_identity():
    """What a route is judged by: most of it stays the same objects for as long as a schedule is played."""

    def read(self, _key, route):
        meta, snap = route.metadata, self._snap
        around = (*snap.gateways.values(), *snap.classes.values(), *snap.namespaces.values())
        return route.spec, meta.annotations, meta.namespace, meta.name, route.problem, route.field, *around

    validator = controller.choice.validate.Validator
    validator.judge = _by_identity(validator.judge, read)
    offer = _by_identity(controller.choice.gateways.offer, _offered_by)
    controller.choice.gateways.offer = controller.choice.validate.offer = offer


def _offered_by(snap, gateway):
    return gateway, snap.classes.get(gateway.spec.gateway_class_name)


def _replace(name, *modules):
    remembering = lru_cache(_SIZE)(getattr(modules[0], name))
    for module in modules:
        if hasattr(module, name):
            setattr(module, name, remembering)


def _by_identity(function, parts):
    """Remember what a function gave for the very same objects; they are kept, so that no other takes their place."""
    known = {}

    def remembering(*args):
        on = parts(*args)
        key = tuple(map(id, on))
        if key not in known:
            if len(known) >= _SIZE:
                known.clear()
            known[key] = (on, function(*args))
        return known[key][1]

    return remembering
