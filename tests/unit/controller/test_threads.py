"""What several threads decode is worked out before there are threads: msgspec does that at a type's first use, without
a lock, and two threads that do it at once end the process with SIGSEGV."""

from __future__ import annotations

import subprocess
import sys

import pytest

# gc shows what msgspec has worked out about a type: there is no public way to ask
ASK = """
import gc, importlib, sys
module, name = sys.argv[1:]
kind = getattr(importlib.import_module(module), name)
sys.exit("StructInfo" not in {type(each).__name__ for each in gc.get_referents(kind)})
"""
DECODED = {
    "contract.decode": ["_Version"],
    "contract.lease": ["_Wire", "_Meta", "_Spec"],
    "controller.cluster.kube": ["_Event", "_List", "_ListMeta", "_Status"],
    "controller.choice.objects": ["_Named", "Gateway", "GatewayClass", "Meta", "Namespace", "Network", "Pod", "Route"],
    "controller.cluster.reflector": ["_Versioned"],
    "controller.injection.keeper": ["ClientConfig", "Configuration", "Hook", "Secret"],
    "controller.injection.webhook": ["_Request", "_Review"],
}


@pytest.mark.parametrize(("module", "name"), [(module, name) for module, names in DECODED.items() for name in names])
def test_a_type_that_threads_decode_is_ready_once_its_module_is_imported(module, name):
    assert subprocess.run([sys.executable, "-c", ASK, module, name], check=False).returncode == 0
