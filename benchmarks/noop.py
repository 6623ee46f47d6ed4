"""The app of the benchmarks whose tasks do nothing."""

APP = """
import hydra


@hydra.main(version_base=None, config_path=None)
def main(cfg):
    return cfg.x


if __name__ == "__main__":
    main()
"""
