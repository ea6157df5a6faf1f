"""Join a Ray cluster, and share it out among workers that hold a model each."""

from __future__ import annotations

from customize.errors import EditError


def connect(address: str | None) -> None:
    """Join the cluster at `address`, or begin one on this machine; raises EditError without Ray."""
    try:
        import ray  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise EditError(
            "--ray: Ray is not installed; expected the extra; run `pip install 'customize[ray]'` "
            "on every machine"
        ) from None
    if not ray.is_initialized():
        try:
            ray.init(address=address, log_to_driver=False, configure_logging=False)
        except (ConnectionError, ValueError) as error:
            raise EditError(
                f"--ray {address}: no cluster answers there ({str(error).splitlines()[0]}); "
                "expected an address such as auto or ray://host:10001; start one with `ray start`"
            ) from None


def workers_and_share(asked: int | None) -> tuple[int, dict[str, int]]:
    """Return how many workers there shall be, and what of the cluster each one takes.

    `asked` None is one for each GPU, without GPUs one for each CPU.
    """
    import ray  # pyright: ignore[reportMissingImports]

    resources = ray.cluster_resources()
    gpus = int(resources.get("GPU", 0))
    count = asked or gpus or int(resources.get("CPU", 1))
    return count, {"num_gpus": int(gpus > 0), "num_cpus": int(gpus == 0)}
