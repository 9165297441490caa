"""A real client against a running gateway: suite.py PATH_OF_WEIR FOLDER_OF_CLIENTS CLIENT [TEST ...].

The folder is the one that `make setup-test` fills. A Python client runs in its own environment there, the ones
for Node in a process of their own beside this one.
"""

import importlib
import os
import pathlib
import subprocess
import sys
import unittest

HERE = pathlib.Path(__file__).resolve().parent
# Client -> modules of its cases.
PYTHON = {
    "openai": ["openai_cases", "openai_recordings"],
    "openai-1": ["openai_cases", "openai_recordings"],
    "anthropic": ["anthropic_cases", "anthropic_recordings"],
    "anthropic-0": ["anthropic_cases", "anthropic_recordings"],
}
NODE = ("openai-node", "openai-node-6")
NODE_VERSION_MIN = 20
MODULES = ("openai_cases.mjs", "openai_recordings.mjs")


def main(weir, folder, client, tests):
    own = pathlib.Path(folder, client, "bin", "python")
    if client in NODE:
        return node(weir, pathlib.Path(folder, "node"), client, tests)
    if client not in PYTHON:
        sys.exit(f"no client is called {client}: there are {', '.join([*PYTHON, *NODE])}")
    if pathlib.Path(sys.prefix).resolve() != own.parent.parent.resolve():
        os.execv(own, [str(own), __file__, weir, folder, client, *tests])
    return python(weir, client, tests)


def python(weir, client, tests):
    import cases
    import gateway
    import recordings

    modules = [importlib.import_module(name) for name in PYTHON[client]]
    running = gateway.Gateway(weir, [recording.name for recording in recordings.all_recordings()])
    cases.Case.gateway = running
    loader = unittest.TestLoader()
    try:
        if tests:
            wanted = [loader.loadTestsFromName(test, module) for module in modules for test in tests if has(module, test)]
        else:
            wanted = [loader.loadTestsFromModule(module) for module in modules]
        result = unittest.TextTestRunner(verbosity=2).run(unittest.TestSuite(wanted))
    finally:
        running.close()
    return 0 if result.wasSuccessful() and result.testsRun else 1


def has(module, test):
    return hasattr(module, test.partition(".")[0])


def node(weir, folder, client, tests):
    import gateway
    import recordings

    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.lstrip("v").partition(".")[0]) < NODE_VERSION_MIN:
        sys.exit(f"the clients for Node need Node {NODE_VERSION_MIN} or newer, this is {version.strip()}")
    recorded = recordings.all_recordings()
    running = gateway.Gateway(weir, [each.name for each in recorded])
    for each in recorded:
        running.upstream.tell(each.name, [each.told()])
    environment = {
        **os.environ,
        **running.environment(),
        "CLIENT": client,
        "CLIENT_FOLDER": str(folder),
        "RECORDINGS": recordings.listing(recorded, running.folder.name),
    }
    names = [f"--test-name-pattern={test}" for test in tests]
    command = ["node", "--test", "--test-reporter=spec", *names, *(str(HERE / module) for module in MODULES)]
    try:
        return subprocess.run(command, env=environment, check=False).returncode
    finally:
        running.close()


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit("usage: suite.py PATH_OF_WEIR FOLDER_OF_CLIENTS CLIENT [TEST ...]")
    sys.path.insert(0, str(HERE))
    sys.exit(main(*sys.argv[1:4], sys.argv[4:]))
