"""The main job: train a network on real data over Ray workers. `python examples/digits.py --help` says the options.

The code is in distgrad/demo.py, so that `python -m distgrad.demo` runs it from an installed package too.
"""

from distgrad.demo import main

if __name__ == "__main__":
    main()
