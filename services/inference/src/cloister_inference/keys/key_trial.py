"""Deserialises evaluation keys and evaluates with them once, as a process of its own.

    python -m cloister_inference.keys.key_trial <library> <circuit> <keys> < input > length

Keys that crash Concrete end this process and not the service. It runs below the service's priority
and for a limited time of the processor, also when the service that began it is gone.
"""

import os
import resource
import sys
from pathlib import Path

CPU_SECONDS = 120
NICENESS = 10


def main() -> None:
    """Print the length of the output."""
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(NICENESS)
    # After the limits, so that they hold for all that Concrete does.
    from cloister_inference.evaluation.circuit import open_circuit  # noqa: PLC0415

    library, name, keys = sys.argv[1:]
    circuit = open_circuit(Path(library), name).with_keys(Path(keys).read_bytes())
    sys.stdout.write(str(len(circuit.evaluate(sys.stdin.buffer.read()))))


if __name__ == "__main__":
    main()
