"""What every process that runs Concrete needs."""

import atexit
import signal


def contain_concrete() -> None:
    """Keep Concrete from ending this process; call it in the main thread, before any other starts.

    Once a circuit has run (concrete-python 2.10.0):

    - an exit handler ends the process with code 0, whatever the code was to be, and before other
      handlers have run (compiler/__init__.py). What it shuts down, dataflow parallelism, is not
      used.
    - a signal handler of its HPX runtime takes the place of Python's for SIGPIPE, and ends the
      process when something is written to a connection that the other side has closed. The signal
      is blocked instead, in this thread and those it starts, and the write raises BrokenPipeError.
    """
    from concrete.compiler import _terminate_df_parallelization  # noqa: PLC0415 - not in every image

    atexit.unregister(_terminate_df_parallelization)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPIPE})
