"""Learns to balance a pole on a cart by deep Q-learning.

The values of both pushes are learned from remembered steps, towards an older copy of the network, whose best
push the network itself picks (double Q-learning). Shows gathers, no_grad, the Huber loss, gradient clipping and
networks copied by their state. The environment is gymnasium's CartPole-v1 if that is installed (or with --env, another with
few actions), otherwise the same made here from the published equations.

Balances for 200 of an episode's 500 steps (pushed at random: 22), the mean of 20, after a quarter of a minute on two cores.

    python examples/dqn.py [--steps 20000] [--env CartPole-v1] [--device cpu] [--seed 0] [--short]
"""

import argparse
import copy
import math
import random
import time

import flambeau as torch
from flambeau import nn
from flambeau.nn import functional as F


class CartPole:
    """The pole on a cart of Barto, Sutton and Anderson (1983), with the part of gymnasium's interface that is used here.

    A cart of 1 kg on a track, a pole of 0.1 kg and 1 m hinged on it, pushed left or right with 10 N every 20 ms. An
    episode ends when the pole leans by 12 degrees or the cart is 2.4 m away, or is cut after 500 steps.
    """

    actions, observations = 2, 4

    def reset(self, seed=None):
        if seed is not None:
            self.random = random.Random(seed)
        self.state, self.t = [self.random.uniform(-0.05, 0.05) for _ in range(4)], 0
        return list(self.state), {}

    def step(self, action):
        x, speed, angle, turn = self.state
        sin, cos = math.sin(angle), math.cos(angle)
        push = ((10.0 if action else -10.0) + 0.05 * turn * turn * sin) / 1.1
        turning = (9.8 * sin - cos * push) / (0.5 * (4 / 3 - 0.1 * cos * cos / 1.1))
        x, speed = x + 0.02 * speed, speed + 0.02 * (push - 0.05 * turning * cos / 1.1)
        angle, turn = angle + 0.02 * turn, turn + 0.02 * turning
        self.state, self.t = [x, speed, angle, turn], self.t + 1
        fallen = abs(x) > 2.4 or abs(angle) > math.radians(12)
        return list(self.state), 1.0, fallen, self.t >= 500, {}


def make(name):
    """An environment, its number of observed values and of actions."""
    try:
        import gymnasium
    except ImportError:
        if name != "CartPole-v1":
            raise SystemExit(f"{name} needs gymnasium: pip install gymnasium") from None
        return CartPole(), CartPole.observations, CartPole.actions
    env = gymnasium.make(name)
    return env, env.observation_space.shape[0], int(env.action_space.n)


class Memory:
    """The last steps, in tensors that are written round and round."""

    def __init__(self, size, observations, device):
        self.now, self.next = torch.zeros(2, size, observations, device=device)
        self.reward, self.ended = torch.zeros(2, size, device=device)
        self.action = torch.zeros(size, dtype=torch.int64, device=device)
        self.size, self.written = size, 0

    def add(self, now, action, reward, next, ended):
        i = self.written % self.size
        self.now[i], self.next[i] = torch.tensor(now), torch.tensor(next)
        self.action[i], self.reward[i], self.ended[i] = action, reward, float(ended)
        self.written += 1

    def sample(self, count):
        i = torch.randint(0, min(self.written, self.size), (count,), device=self.now.device)
        return self.now[i], self.action[i], self.reward[i], self.next[i], self.ended[i]


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--env", default="CartPole-v1")
    options.add_argument("--steps", type=int, default=20_000)
    options.add_argument("--batch-size", type=int, default=128)
    options.add_argument("--lr", type=float, default=1e-3)
    options.add_argument("--gamma", type=float, default=0.99)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--device", default="cpu")
    options.add_argument("--short", action="store_true", help="a few seconds' worth, as the tests run it")
    o = options.parse_args()
    if o.short:
        o.steps = 4000
    torch.manual_seed(o.seed)
    chance = random.Random(o.seed)
    env, observations, actions = make(o.env)
    net = nn.Sequential(
        nn.Linear(observations, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, actions)
    ).to(o.device)
    target = copy.deepcopy(net).requires_grad_(False)
    optimizer = torch.optim.AdamW(net.parameters(), lr=o.lr)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, total_iters=o.steps // 2)
    memory = Memory(20_000, observations, o.device)

    @torch.no_grad()
    def best(state):
        return net(torch.tensor(state, dtype=torch.float32, device=o.device)).argmax().item()

    trial = make(o.env)[0]

    def play(seeds):
        """The mean reward of episodes in which the best push is always taken."""
        total = 0.0
        for seed in seeds:
            state, _ = trial.reset(seed=seed)
            over = False
            while not over:
                state, reward, fallen, cut, _ = trial.step(best(state))
                total, over = total + reward, fallen or cut
        return total / len(seeds)

    state, _ = env.reset(seed=o.seed)
    kept, most = copy.deepcopy(net.state_dict()), -math.inf
    start, lived, lives = time.perf_counter(), 0, [0]
    for step in range(o.steps):
        explore = max(0.05, 1 - step / (0.2 * o.steps))
        action = chance.randrange(actions) if chance.random() < explore else best(state)
        after, reward, fallen, cut, _ = env.step(action)
        memory.add(state, action, reward, after, fallen)
        state, lived = after, lived + 1
        if fallen or cut:
            state, _ = env.reset()
            lives, lived = [*lives[-19:], lived], 0
        if step >= 500 and step % 2 == 0:
            now, action, reward, after, ended = memory.sample(o.batch_size)
            with torch.no_grad():
                ahead = target(after).gather(1, net(after).argmax(1, keepdim=True)).squeeze(1)
                worth = reward + o.gamma * (1 - ended) * ahead
            loss = F.smooth_l1_loss(net(now).gather(1, action.unsqueeze(1)).squeeze(1), worth)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 10.0)
            optimizer.step()
            schedule.step()
            if step % 300 == 0:
                target.load_state_dict(net.state_dict())
        if step % 200 == 199:
            mean = sum(lives) / len(lives)
            print(
                f"\rstep {step + 1}/{o.steps}  mean of the last episodes {mean:5.1f}  {time.perf_counter() - start:5.1f} s",
                end="",
                flush=True,
            )
        # What is learned is also forgotten: the best network on the way is the result.
        if step % 1000 == 999:
            mean = play(range(100, 110))
            if mean >= most:
                kept, most = copy.deepcopy(net.state_dict()), mean
    print()
    net.load_state_dict(kept)
    print(f"mean reward: {play(range(1000, 1020)):.1f}")


if __name__ == "__main__":
    main()
