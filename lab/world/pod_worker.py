"""One Pod on its node, from its sandbox to the end, in the kubelet's order; a thread each.

First the network namespace, then the volume, then the containers; at the end the containers, then the network
namespace, then the Pod's object. Status is written when something changes. What may change it comes through one agenda:
the Pod's object, processes that ended, orders, and times that have come. Not here: the containers' own rules
(`lab.world.runtime`), and the token's (`lab.world.volume`).
"""

from __future__ import annotations

import queue
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from lab.errors import ApiError, ApiUnreachable, LabError
from lab.world.agenda import Agenda
from lab.world.host import Place, now
from lab.world.pod_status import status
from lab.world.runtime import Runtime
from lab.world.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lab.world.host import Host

Object = dict[str, Any]

_STRATEGIC: Final = "application/strategic-merge-patch+json"
_GRACE_S: Final = 30.0
_GONE_GRACE_S: Final = 2.0
"""The grace period of a Pod whose object is no more, and says none."""
_ORDER_S: Final = 10.0
_TRY_AGAIN_S: Final = 0.5
_BEGIN_AGAIN_S: Final = 2.0


class PodWorker:
    """One Pod on one node."""

    def __init__(self, host: Host, pod: Object, ended: Callable[[PodWorker], None]) -> None:
        """Nothing happens before `start`.

        Args:
            host: the node's.
            pod: its object.
            ended: called with this worker, in its thread, when nothing is left of the Pod.
        """
        self.place = Place.of(host, pod)
        self._host = host
        self._pod = pod
        self._ended = ended
        self._agenda = Agenda()
        self._doomed = threading.Event()
        self._volume = Volume(self.place, pod, self._agenda, self._doomed)
        self._runtime = Runtime(self.place, pod, self._agenda)
        self._after: Sequence[PodWorker] = ()
        self._ending = False
        self._written = ""
        self._version = 0
        self._thread = threading.Thread(target=self._run, name=f"pod-{self.place.name}", daemon=True)

    # from outside: any thread ----------------------------------------------------------------------------------

    def start(self, after: Sequence[PodWorker] = ()) -> None:
        """Begin, once nothing is left of earlier Pods; these have been started."""
        self._after = after
        self._thread.start()

    def join(self) -> None:
        """Wait until nothing is left of it."""
        self._thread.join()

    def changed(self, pod: Object) -> None:
        """The Pod's object has a new version."""
        if "deletionTimestamp" in pod["metadata"]:
            self._doomed.set()
        self._agenda.put(lambda: self._changed(pod))

    def deleted(self) -> None:
        """The Pod's object is no more."""
        self._doomed.set()
        self._agenda.put(lambda: self._end(_GONE_GRACE_S, delete=False))

    def order(self, what: str) -> None:
        """Carry out `fail-app` or `heal-app`; done, and in the Pod's status, when this returns.

        Raises:
            LabError: it could not be done.
        """
        said: queue.Queue[LabError | None] = queue.Queue()

        def carry_out() -> None:
            try:
                self._runtime.tell(what.removesuffix("-app"))
                self._write()
            except LabError as error:
                said.put(error)
            else:
                said.put(None)

        self._agenda.put(carry_out)
        if error := said.get(timeout=_ORDER_S):
            raise error

    # the thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        for earlier in self._after:
            earlier.join()
        self._after = ()
        try:
            self._begin()
            while not self._ending:
                self._agenda.next()()
                self._write()
        except Exception:
            self.place.say("is lost to a fault of the lab")
            raise

    def _begin(self) -> None:
        if "deletionTimestamp" in self._pod["metadata"]:
            self._changed(self._pod)
            return
        try:
            self._furnish()
            self._runtime.start()
        except (LabError, OSError) as error:
            self.place.say(f"does not start: {error}")
            self._runtime.wait(str(error))
            self._agenda.at("begin", _BEGIN_AGAIN_S, self._begin)
        self._write()

    def _furnish(self) -> None:
        if self._runtime.sandbox is None:
            annotations = self._pod["metadata"].get("annotations", {})
            place = self.place
            self._runtime.enter(self._host.sandboxes.make(place.namespace, place.name, place.uid, annotations))
        if self._runtime.state.sidecar:
            self._volume.furnish()

    def _changed(self, pod: Object) -> None:
        self._pod = pod
        if "deletionTimestamp" in pod["metadata"]:
            # from now on a kubelet looks after no volume (pkg/kubelet/volumemanager, desiredStateOfWorldPopulator)
            self._end(float(pod["metadata"].get("deletionGracePeriodSeconds", _GRACE_S)), delete=True)
            return
        self._volume.annotate(pod)
        if int(pod["metadata"]["resourceVersion"]) > self._version:
            said = {each["type"]: each["status"] for each in pod.get("status", {}).get("conditions") or []}
            if self._version and said.get("Ready") != ("True" if self._runtime.state.ready else "False"):
                self._written = ""  # somebody else changed it: say it again

    # end -------------------------------------------------------------------------------------------------------

    def _end(self, grace_s: float, *, delete: bool) -> None:
        self._ending = True
        self._runtime.stop(grace_s)
        if self._runtime.sandbox:
            self._host.sandboxes.remove(self._runtime.sandbox)
        self.place.record.unlink(missing_ok=True)
        self._volume.discard()
        if delete:
            self._delete()
        self._ended(self)

    def _delete(self) -> None:
        """Remove the Pod's object: the one with this UID, and no other of its name."""
        at_once = {"gracePeriodSeconds": 0, "preconditions": {"uid": self.place.uid}}
        while True:
            try:
                self._host.api.delete(self.place.path, at_once)
            except ApiUnreachable:
                time.sleep(_TRY_AGAIN_S)
            except ApiError as error:
                if error.code not in (404, 409):
                    raise
                return
            else:
                return

    # its status ------------------------------------------------------------------------------------------------

    def _write(self) -> None:
        """Write the status, if it is another than before."""
        state = self._runtime.state
        if self._ending or repr(state) == self._written:
            return
        body = status(state, self._pod.get("status", {}), now())
        try:
            answer = self._host.api.patch(f"{self.place.path}/status", body, _STRATEGIC)
        except (ApiUnreachable, ApiError) as error:
            if not (isinstance(error, ApiError) and error.code in (404, 409)):
                self.place.say(f"status not written: {error}")
                self._agenda.at("status", _TRY_AGAIN_S, _wake)
            return
        self._written = repr(state)
        self._version = int(answer["metadata"]["resourceVersion"])
        self._pod["status"] = answer["status"]


def _wake() -> None:
    """Come by once more, and write what has not been written."""
