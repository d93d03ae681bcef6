#!/bin/sh
# Whether the core's time depends on a secret: branches and addresses by valgrind, and instructions
# whose time depends on their operands by name. Wants the core's sources at /native.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
build=$(mktemp -d)
cd /native
gcc -std=c11 -O3 -ffp-contract=off -Wall -Wextra -Werror -g -I . \
    "$here/secrets.c" aesni.c lwe.c noise.c portable.c vaes.c -o "$build/secrets"

for name in lwe noise portable aesni vaes; do
    gcc -std=c11 -O3 -ffp-contract=off -c "$name.c" -o "$build/$name.o"
    if objdump --disassemble "$build/$name.o" | grep --extended-regexp '\sv?(i?div|sqrt)[a-z]*\s'; then
        echo "$name: divides or takes a root"
        exit 1
    fi
done

# Valgrind does not know AVX-512: the kernel vaes has the code of aesni, with wider registers.
for kernel in portable aesni; do
    valgrind --quiet --error-exitcode=9 "$build/secrets" "$kernel"
    echo "$kernel: no branch or address depends on a secret"
done
if valgrind --quiet --error-exitcode=9 "$build/secrets" aesni leak >"$build/leak" 2>&1; then
    echo "a branch on a bit of the key was not seen"
    exit 1
fi
grep 'depends on uninitialised value' "$build/leak"
echo "leak: seen"
