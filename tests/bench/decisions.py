"""How long one decision takes, at 50 nodes x 200 models.

    python -m tests.bench.decisions

The world is a real `Fleet` fed with 49 beacons of 200 models each; every decision reads a fresh
snapshot, as a request does. Mixes: what is asked is warm here, warm elsewhere only (with room for
it here, and with every device full), nowhere.
"""

import random
import statistics
import time

from edge import clock
from edge.config import NodeConfig, Public, Weights
from edge.fleet.own import OwnWorker
from edge.fleet.snapshot import Fleet
from edge.policy.facts import (
    Ask,
    Beacon,
    ModelBeacon,
    OnDevice,
    Standing,
    State,
    Tier,
    WorkerBeacon,
)
from edge.policy.route import decide

NODES = 50
MODELS = 200
DECISIONS = 20_000
DEVICE_BYTES = 1 << 33
WARM = OnDevice(service_ms=8.0, cost_ms=4.0)


def digest(number: int) -> str:
    """The digest of a model, by its number."""
    return f"{number:064x}"


def fleet(draw: random.Random, used_bytes: int = 0) -> Fleet:
    """This node with one worker, and 49 others 5 to 250 ms away; a model is on a third of the devices.

    Of each device `used_bytes` are taken.
    """
    config = NodeConfig(
        node="pop0-a",
        pop="pop0",
        region="r0",
        run_dir="/run/none",
        public=Public(listen=("127.0.0.1:1",)),
        weights=Weights(store="/var/none", origin="file:///none"),
    )
    made = Fleet(config, changed=lambda: None)
    worker = OwnWorker(
        "pop0-a/0",
        device="cpu",
        device_bytes=DEVICE_BYTES,
        soft_limit=32,
        hard_limit=128,
        capacity_freed=lambda: None,
        changed=made.touched,
    )
    made.add(worker)
    worker.set_state(State.UP)
    worker.used_bytes = used_bytes
    for number in range(MODELS // 4):
        worker.resident(digest(number), 100.0)
    now_ms = clock.now_ms()
    for index in range(1, NODES):
        models = {
            digest(number): ModelBeacon(tier=Tier.DISK, workers={0: WARM} if draw.random() < 0.33 else {})
            for number in range(MODELS * 3 // 4)
            if draw.random() < 0.6
        }
        load = WorkerBeacon(
            State.UP,
            32,
            128,
            in_flight=draw.randrange(20),
            queued_ms=draw.uniform(0, 80),
            device_bytes=DEVICE_BYTES,
            used_bytes=used_bytes,
        )
        name = f"pop{index}-a"
        made.measured_rtt(name, draw.uniform(5.0, 250.0))
        made.linked(name, True)
        made.take(
            Beacon(
                node=name,
                pop=f"pop{index}",
                region=f"r{index % 6}",
                boot=1,
                seq=1,
                workers=(load,),
                models=models,
            ),
            now_ms,
        )
        made.standing(name, Standing.GOOD)
    return made


def measured_us(world: Fleet, numbers: range, draw: random.Random) -> list[float]:
    """Microseconds of each decision."""
    took = []
    for _ in range(DECISIONS):
        ask = Ask(
            model="m",
            digest=digest(draw.choice(numbers)),
            deadline_ms=60_000.0,
            body_bytes=400,
            weights_bytes=50_000_000,
        )
        ties = draw.random()
        began = time.perf_counter_ns()
        decide(ask, world.current(clock.now_ms()), ties)
        took.append((time.perf_counter_ns() - began) / 1000.0)
    return took


def main() -> None:
    """Print a table."""
    draw = random.Random(7)
    roomy, full = fleet(draw), fleet(draw, DEVICE_BYTES)
    print(f"{NODES} nodes x {MODELS} models, {DECISIONS} decisions each; us per decision")
    print("| asked is | median | p99 | worst |\n|---|---|---|---|")
    mixes = {
        "warm here": (roomy, range(MODELS // 4)),
        "warm elsewhere": (roomy, range(MODELS // 4, MODELS * 3 // 4)),
        "warm elsewhere, devices full": (full, range(MODELS // 4, MODELS * 3 // 4)),
        "nowhere": (roomy, range(MODELS * 3 // 4, MODELS)),
        "any of the 200": (roomy, range(MODELS)),
    }
    for name, (world, numbers) in mixes.items():
        took = sorted(measured_us(world, numbers, draw))
        print(
            f"| {name} | {statistics.median(took):.1f} | {took[int(len(took) * 0.99)]:.1f} | {took[-1]:.0f} |"
        )


if __name__ == "__main__":
    main()
