// The fused kernel on the CPU: its own text between stand-ins for what CUDA declares. A thread block is as many threads
// of the system, __syncthreads a barrier, shared memory one array, so blocks run one after the other. With
// -fsanitize=thread a missing __syncthreads is reported as the data race that it is.

#include <barrier>
#include <cmath>
#include <thread>
#include <vector>

struct Index {
    unsigned x;
};
static thread_local Index threadIdx, blockIdx;
static Index blockDim;
static std::barrier<>* meeting;
static void __syncthreads()
{
    meeting->arrive_and_wait();
}
double memory[1 << 15];
using std::exp;
using std::fabs;
using std::sqrt;

#define __device__
#define __global__
#define __shared__
#define __launch_bounds__(...)
#include "rbf_inverse.cu"

template <typename real>
static void launch(
    unsigned blocks, unsigned threads, const real* X, int m, int d, real gamma, real ridge, real largest_norm,
    real* inverses, bool* failed)
{
    blockDim = {threads};
    for (unsigned block = 0; block < blocks; ++block) {
        std::barrier<> all(threads);
        meeting = &all;
        std::vector<std::jthread> running;
        for (unsigned thread = 0; thread < threads; ++thread)
            running.emplace_back([=] {
                threadIdx = {thread};
                blockIdx = {block};
                rbf_inverse(X, m, d, gamma, ridge, largest_norm, inverses, failed);
            });
    }
}

extern "C" void rbf_inverse_double(
    unsigned blocks, unsigned threads, const double* X, int m, int d, double gamma, double ridge, double largest_norm,
    double* inverses, bool* failed)
{
    launch(blocks, threads, X, m, d, gamma, ridge, largest_norm, inverses, failed);
}

extern "C" void rbf_inverse_float(
    unsigned blocks, unsigned threads, const float* X, int m, int d, float gamma, float ridge, float largest_norm,
    float* inverses, bool* failed)
{
    launch(blocks, threads, X, m, d, gamma, ridge, largest_norm, inverses, failed);
}

int main()  // for the sanitizer: more rows than lanes, more features than a chunk has
{
    constexpr int m = 37, d = 20;
    std::vector<double> X(2 * m * d), inverses(2 * m * m);
    bool failed[2];
    for (std::size_t p = 0; p < X.size(); ++p)
        X[p] = std::sin(double(p * p));
    launch(2, 96, X.data(), m, d, 0.5, 0.1, 1e12, inverses.data(), failed);
    return failed[0] || failed[1];
}
