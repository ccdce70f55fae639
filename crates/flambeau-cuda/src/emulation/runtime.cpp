// The scheduler of the emulated device; see emulation.h.  x86-64 System V only: the context switch is its register set.
#include "emulation.h"
#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>

namespace emulation {
Block *running;

asm(R"(
.text
.globl flambeau_switch
.type flambeau_switch,@function
flambeau_switch:
  pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15
  movq %rsp,(%rdi)
  movq %rsi,%rsp
  popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp
  ret
.size flambeau_switch,.-flambeau_switch
)");
extern "C" void flambeau_switch(void **save, void *to);

static inline void select(Block *b, int t) {
    b->current = t;
    b->thread = b->ids[t];
}

// What every fiber runs: threads one after another, until none is left to start.
static void fiber_main() {
    Block *b = running;
    for (;;) {
        if (b->next < b->count) {
            int t = b->next++;
            select(b, t);
            b->fiber_of[t] = b->fiber;
            b->state[t] = READY;
            b->body(b->arguments);
            t = b->current;
            b->state[t] = DONE;
            b->live--;
            b->needed[t >> 5] &= ~(1u << (t & 31));
        } else {
            b->idle[b->idle_count++] = b->fiber;
            flambeau_switch(&b->fibers[b->fiber], b->main);
        }
    }
}

static int take_fiber(Block *b) {
    if (!b->idle_count) {
        int f = b->made++;
        void **sp = (void **)(b->stacks + (size_t)(f + 1) * STACK);
        *--sp = 0; // the ABI's alignment at a function's entry
        *--sp = (void *)fiber_main;
        for (int k = 0; k < 6; k++) *--sp = 0;
        b->fibers[f] = sp;
        return f;
    }
    return b->idle[--b->idle_count];
}

// Leaves the current fiber for the best next one: an unstarted thread, else a ready lane of this warp, else the scheduler.
static void leave(Block *b, int t) {
    int from = b->fiber;
    if (b->next < b->count) {
        int f = take_fiber(b);
        b->fiber = f;
        flambeau_switch(&b->fibers[from], b->fibers[f]);
        return;
    }
    int first = t & ~31, last = first + 32 < b->count ? first + 32 : b->count;
    for (int k = 1; k < last - first; k++) {
        int i = first + (t - first + k) % (last - first);
        if (b->state[i] == READY) {
            select(b, i);
            b->fiber = b->fiber_of[i];
            flambeau_switch(&b->fibers[from], b->fibers[b->fiber]);
            return;
        }
    }
    flambeau_switch(&b->fibers[from], b->main);
}

static void release_block(Block *b) {
    b->at_barrier = 0;
    for (int i = 0; i < b->count; i++)
        if (b->state[i] == AT_BLOCK) b->state[i] = READY;
}
static void release_warp(Block *b, int w) {
    b->arrived[w] = 0;
    b->epoch[w]++;
    for (int i = w * 32; i < w * 32 + 32 && i < b->count; i++)
        if (b->state[i] == AT_WARP) b->state[i] = READY;
}

__attribute__((noinline)) void wait_block() {
    Block *b = running;
    int t = b->current;
    b->state[t] = AT_BLOCK;
    if (++b->at_barrier == b->live && b->next == b->count) {
        release_block(b);
        return;
    }
    leave(b, t);
}
__attribute__((noinline)) void wait_warp(uint64_t value) {
    Block *b = running;
    int t = b->current, w = t >> 5;
    uint8_t parity = b->epoch[w] & 1;
    b->parity[t] = parity;
    b->slot[parity][t] = value;
    b->arrived[w] |= 1u << (t & 31);
    if (b->arrived[w] == b->needed[w]) {
        release_warp(b, w);
        return;
    }
    b->state[t] = AT_WARP;
    leave(b, t);
}

// 0, or 1 when threads wait for something that cannot happen.
static int run_block(Block *b) {
    b->next = 0;
    b->live = b->count;
    b->at_barrier = 0;
    for (int w = 0; w * 32 < b->count; w++) {
        int rest = b->count - w * 32;
        b->arrived[w] = 0;
        b->needed[w] = rest >= 32 ? 0xffffffffu : (1u << rest) - 1;
    }
    while (b->next < b->count) {
        b->fiber = take_fiber(b);
        flambeau_switch(&b->main, b->fibers[b->fiber]);
    }
    while (b->live) {
        bool progress = false;
        for (int w = 0; w * 32 < b->count; w++) {
            int first = w * 32, last = first + 32 < b->count ? first + 32 : b->count;
            for (bool again = true; again;) {
                again = false;
                for (int t = first; t < last; t++)
                    if (b->state[t] == READY) {
                        select(b, t);
                        b->fiber = b->fiber_of[t];
                        flambeau_switch(&b->main, b->fibers[b->fiber]);
                        progress = again = true;
                    }
                // Lanes that returned can complete a wait of the others.
                if (!again && b->arrived[w] && b->arrived[w] == b->needed[w]) {
                    release_warp(b, w);
                    again = true;
                }
            }
        }
        if (!b->live) break;
        if (b->at_barrier == b->live) {
            release_block(b);
            progress = true;
        }
        if (!progress) return 1;
    }
    return 0;
}

// 0 done, 1 deadlock, 2 invalid launch, 3 no memory for the fibers.  One launch at a time (the caller holds a lock).
int launch(void (*body)(void *), void *arguments, dim3 g, dim3 t, size_t shared, char *first, char *last) {
    size_t threads = (size_t)t.x * t.y * t.z;
    if (!g.x || !g.y || !g.z || !threads || threads > MAX_THREADS || t.z > 64 || shared > MAX_SHARED || g.x > 0x7fffffffu ||
        g.y > 65535 || g.z > 65535 || (size_t)(last - first) > 48 * 1024)
        return 2;
    static Block *mine;
    if (!mine) {
        mine = (Block *)calloc(1, sizeof(Block));
        mine->dynamic = (char *)aligned_alloc(128, MAX_SHARED + 1024 - MAX_SHARED % 128);
        mine->stacks = (char *)mmap(0, (size_t)MAX_THREADS * STACK, PROT_READ | PROT_WRITE,
                                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (mine->stacks == MAP_FAILED) {
            mine = 0;
            return 3;
        }
    }
    Block *b = mine;
    running = b;
    b->body = body;
    b->arguments = arguments;
    b->threads = t;
    b->grid = g;
    b->count = (int)threads;
    for (int i = 0; i < b->count; i++) {
        unsigned q = (unsigned)i / t.x;
        b->ids[i] = dim3{(unsigned)i % t.x, q % t.y, q / t.y};
    }
    int failure = 0;
    for (unsigned z = 0; z < g.z && !failure; z++)
        for (unsigned y = 0; y < g.y && !failure; y++)
            for (unsigned x = 0; x < g.x && !failure; x++) {
                b->block = dim3{x, y, z};
                if (first) memset(first, 0xff, last - first);
                failure = run_block(b);
            }
    // Fibers of a failed block are left in the middle of a kernel: start afresh.
    if (failure) b->made = b->idle_count = 0;
    return failure;
}
}
