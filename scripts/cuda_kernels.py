"""The kernels, compiled for an architecture without a GPU: for the scripts that look at them."""

import concurrent.futures
import os
import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
FLAGS = ("-std=c++20", "--fmad=false", "--expt-relaxed-constexpr", "-O3", "-Xptxas", "-v")
PROGRAM = pathlib.Path(sys.argv[0]).name


def stop(text, status=1):
    print(f"{PROGRAM}: error: {text}", file=sys.stderr)
    sys.exit(status)


def add_flags(parser):
    parser.add_argument("--arch", default="sm_90", help="as nvcc's -arch (default sm_90)")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("files", nargs="*", type=pathlib.Path, metavar="FILE.cu",
                        help="default: all kernels")


def check_flags(parser, options):
    for path in options.files:
        if path.suffix != ".cu":
            parser.error(f"{path} is no kernel file (kernels/*.cu)")
        if not path.is_file():
            stop(f"{path} is not there: give a file of kernels/", 3)
    if not re.fullmatch(r"sm_\d+[af]?", options.arch):
        parser.error(f"--arch is {options.arch}: give one as sm_80, sm_90 or sm_120")


def sources():
    text = (ROOT / "kernels/sources.cmake").read_text(encoding="utf-8")
    files = [ROOT / "kernels" / name for name in re.findall(r"^  (\S+\.cu)\)?$", text, re.M)]
    return files or stop("kernels/sources.cmake lists no files")


def find_nvcc():
    return os.environ.get("CUDACXX") or shutil.which("nvcc") or stop(
        "no nvcc on PATH: set CUDACXX, or install the CUDA toolkit (scripts/quickstart --with-cuda)")


def compile_all(arch, files, folder):
    """Makes FOLDER/<name>.cubin of each; [(source, cubin, what ptxas said)]."""
    nvcc = find_nvcc()

    def compiled(source):
        cubin = pathlib.Path(folder) / f"{source.stem}.cubin"
        done = subprocess.run([nvcc, *FLAGS, f"-arch={arch}", "-I", ROOT, "-I", ROOT / "src", "-I",
                               ROOT / "include", "-cubin", source, "-o", cubin],
                              capture_output=True, text=True)
        return source, cubin, done

    results = []
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for source, cubin, done in pool.map(compiled, [path.resolve() for path in files]):
            if done.returncode != 0:
                stop(f"{source} does not compile:\n{done.stderr}")
            results.append((source, cubin, done.stderr))
    return results


def short_names(mangled):
    """`gemm<Tile<..>, ..>` without the namespaces and the parameters, of each."""
    done = subprocess.run(["c++filt"], input="\n".join(mangled), capture_output=True, text=True,
                          check=True)
    return [short(name) for name in done.stdout.splitlines()]


def short(name):
    name = re.sub(r"^void ", "", re.sub(r"cuvae::gpu::", "", name))
    depth = 0
    for i, ch in enumerate(name):
        depth += (ch == "<") - (ch == ">")
        if ch == "(" and depth == 0:
            return name[:i]
    return name
