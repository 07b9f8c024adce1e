"""What the scripts' command lines have in common."""

import argparse
import sys


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message):
        print(f"{self.prog}: error: {message}: see {self.prog} --help", file=sys.stderr)
        sys.exit(2)
