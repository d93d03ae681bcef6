"""What every process that runs Concrete needs."""

import atexit


def keep_exit_code() -> None:
    """Let this process end with its own exit code; call it before Concrete runs a circuit.

    Once a circuit has run, an exit handler of Concrete's ends the process with code 0, whatever
    the code was to be, and before other handlers have run (concrete-python 2.10.0,
    compiler/__init__.py). What it shuts down, dataflow parallelism, is not used.
    """
    from concrete.compiler import _terminate_df_parallelization  # noqa: PLC0415 - not in every image

    atexit.unregister(_terminate_df_parallelization)
