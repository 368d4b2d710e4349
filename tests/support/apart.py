"""Runs in processes of their own, which can be killed, or kept from writing."""

import ctypes
import multiprocessing
import os
import resource
from multiprocessing.connection import Connection

# One process imports everything, once (also what torch's optimizers do late); each run is a fork of it.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["byzflower.server.engines.simulation", "torch._dynamo"])


class Apart:
    """A run of `simulate` in a process of its own."""

    def __init__(self, options, *, most_bytes=None, powerless=False, fresh=False):
        """Start it.

        Args:
            options: of the configuration.
            most_bytes: no file may be longer; writing more fails as on a full disk.
            powerless: take root's right to write wherever it likes.
            fresh: forget earlier results.
        """
        self._answer, child = _CONTEXT.Pipe(duplex=False)
        arguments = (options, child, most_bytes, powerless, fresh)
        self.process = _CONTEXT.Process(target=_run, args=arguments, daemon=True)
        self.process.start()
        child.close()

    def kill(self):
        """Kill -9."""
        self.process.kill()
        self.process.join()

    def end(self, timeout=120):
        """Wait for its end; returns the message of a mistake, "" if there was none, None if it was killed."""
        self.process.join(timeout)
        assert self.process.exitcode is not None, "it hangs"
        try:
            return self._answer.recv()
        except EOFError:
            return None


def _run(options, answer: Connection, most_bytes, powerless, fresh):
    from byzflower.server.config.checks import ConfigError
    from byzflower.server.config.tasks import make_config
    from byzflower.server.engines.simulation import simulate

    if most_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, resource.RLIM_INFINITY))
    if powerless and os.getuid() == 0:
        _drop_capabilities()
    try:
        simulate(make_config(options), fresh=fresh)
        answer.send("")
    except ConfigError as error:
        answer.send(str(error))


def _drop_capabilities():
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    none = (ctypes.c_uint32 * 6)()
    if ctypes.CDLL(None, use_errno=True).capset(header, none):
        raise OSError(ctypes.get_errno(), "capset")
