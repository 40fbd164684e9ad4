# Common tasks. `just` lists them; https://just.systems installs with `pip install rust-just`.

export UV_NO_SYNC := "1"

_list:
    @just --list --unsorted

# Create .venv with everything needed to develop
setup:
    UV_NO_SYNC=0 uv sync --all-groups

# Format the code and regenerate docs/cli.md and docs/recipes.md
format:
    uv run ruff check --fix .
    uv run ruff format .
    uv run cog -r README.md docs/cli.md docs/recipes.md

# Check style, types, imports and dependencies
lint:
    uv run ruff check .
    uv run ruff format --check .
    uv run mypy
    uv run lint-imports
    uv run deptry regionclip_cli
    uv run cog --check README.md docs/cli.md docs/recipes.md

# Run the tests, or those given: just test tests/data -k captions
test *arguments:
    uv run pytest {{ arguments }}

# Run the tests and list the lines that none of them reaches
coverage:
    uv run pytest --cov --cov-report=term-missing:skip-covered

# Everything that must hold before a change lands
check:
    .ci/run

# Build the documentation into site/ and fail on any broken link
docs:
    uv run --group docs mkdocs build --strict

# Serve the documentation at http://localhost:8000 and rebuild on changes
docs-serve:
    uv run --group docs mkdocs serve

# Feed mutated inputs to every reader
fuzz count="50000":
    uv run python -m tests.fuzz --count {{ count }}

# Kill runs at random moments and compare what they leave with an undisturbed run
torture count="1000":
    uv run python benchmarks/torture.py --kills {{ count }}

# Rebuild the ONNX graphs of the packaged model; needed whenever its weights change
graphs:
    uv run regionclip models export regionclip-tiny regionclip_cli/hub/packaged/regionclip-tiny.onnx --force

# Measure the speed of detection and pretraining on this machine
bench:
    uv run python benchmarks/detect.py
    uv run python benchmarks/pretrain.py

# Resolve all dependencies anew, as of DATE (YYYY-MM-DD), and write constraints.txt
pins date:
    sed -i 's/^exclude-newer = .*/exclude-newer = "{{ date }}T00:00:00Z"/' pyproject.toml
    uv lock --upgrade
    .ci/pins > constraints.txt
