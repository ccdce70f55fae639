// CUDA's vocabulary for a host compiler: one host thread runs one block at a time, and the block's threads are fibers
// that switch only at barriers and shuffles.  A fiber goes on with threads that have not started until one blocks, so a
// kernel without barriers runs as a plain loop.  The scheduler is in runtime.cpp, built once and shared by every kernel.
#pragma once
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define FLAMBEAU_EMULATED 1
#define __device__
#define __host__
#define __global__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __restrict__ __restrict
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
// A section of its own, so that the runtime can poison all shared memory before each block: stale values would hide
// a missing barrier.
#define __shared__ static __attribute__((section("flambeau_shared")))

struct dim3 { unsigned x, y, z; };

namespace emulation {
enum State : uint8_t { READY, AT_WARP, AT_BLOCK, DONE };
enum { MAX_THREADS = 1024, STACK = 64 * 1024, MAX_SHARED = 227 * 1024 };
struct Block {
    dim3 thread, block, threads, grid;
    int current, count, next, live, fiber, made, idle_count, at_barrier;
    void (*body)(void *);
    void *arguments;
    void *main;
    void *fibers[MAX_THREADS];
    int idle[MAX_THREADS], fiber_of[MAX_THREADS];
    State state[MAX_THREADS];
    uint64_t slot[2][MAX_THREADS];
    uint8_t parity[MAX_THREADS];
    uint32_t arrived[32], needed[32], epoch[32];
    dim3 ids[MAX_THREADS];
    char *stacks, *dynamic;
};
extern Block *running;
void wait_block();
void wait_warp(uint64_t value);
int launch(void (*body)(void *), void *arguments, dim3 grid, dim3 threads, size_t shared, char *first, char *last);
}
// The bounds of this module's shared variables, given by the linker when there are any.
extern "C" char __start_flambeau_shared[] __attribute__((weak, visibility("hidden")));
extern "C" char __stop_flambeau_shared[] __attribute__((weak, visibility("hidden")));

#define threadIdx (emulation::running->thread)
#define blockIdx (emulation::running->block)
#define blockDim (emulation::running->threads)
#define gridDim (emulation::running->grid)
static inline void __syncthreads() { emulation::wait_block(); }
static inline void __syncwarp(unsigned = 0xffffffffu) { emulation::wait_warp(0); }
static inline void __threadfence() {}

// `source` is an absolute thread number, or -1 for the thread's own value.  Slots alternate with the warp's epoch, so
// that one wait a shuffle is enough.
template <class T> static inline T emulated_shuffle(T value, int source) {
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof(T));
    int me = emulation::running->current;
    emulation::wait_warp(bits);
    if (source < 0 || source >= emulation::running->count) source = me;
    T result;
    memcpy(&result, &emulation::running->slot[emulation::running->parity[me]][source], sizeof(T));
    return result;
}
template <class T> static inline T __shfl_sync(unsigned, T v, int lane) {
    return emulated_shuffle(v, (emulation::running->current & ~31) | (lane & 31));
}
template <class T> static inline T __shfl_xor_sync(unsigned, T v, int mask) {
    return emulated_shuffle(v, emulation::running->current ^ mask);
}
template <class T> static inline T __shfl_down_sync(unsigned, T v, int d) {
    int me = emulation::running->current;
    return emulated_shuffle(v, (me & 31) + d < 32 ? me + d : -1);
}

template <class T> static inline T atomicAdd(T *p, T v) { T old = *p; *p = (T)(old + v); return old; }
template <class T> static inline T atomicMax(T *p, T v) { T old = *p; if (v > old) *p = v; return old; }
template <class T> static inline T atomicMin(T *p, T v) { T old = *p; if (v < old) *p = v; return old; }
template <class T> static inline T atomicCAS(T *p, T want, T v) { T old = *p; if (old == want) *p = v; return old; }
template <class T> static inline T __ldg(const T *p) { return *p; }

static inline float __uint_as_float(unsigned u) { float f; memcpy(&f, &u, 4); return f; }
static inline unsigned __float_as_uint(float f) { unsigned u; memcpy(&u, &f, 4); return u; }

// From cuLaunchKernel's untyped arguments to the kernel's one parameter.
template <class A> struct EmulatedCall {
    void (*kernel)(A);
    A *arguments;
    static void run(void *p) { EmulatedCall *call = (EmulatedCall *)p; call->kernel(*call->arguments); }
};
template <class A> static inline int emulated_launch(void (*kernel)(A), void **arguments, const unsigned *d, size_t shared) {
    EmulatedCall<A> call = {kernel, (A *)arguments[0]};
    return emulation::launch(&EmulatedCall<A>::run, &call, dim3{d[0], d[1], d[2]}, dim3{d[3], d[4], d[5]}, shared,
                             __start_flambeau_shared, __stop_flambeau_shared);
}
#define FLAMBEAU_EXPORT(name) \
    extern "C" int name##_emulated(void **a, const unsigned *d, size_t s) { return emulated_launch(name, a, d, s); }
