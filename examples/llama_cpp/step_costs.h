// Cost of verifying a draft: measured at the start, then followed.
#pragma once

#include <algorithm>
#include <vector>

constexpr int MAX_DRAFT = 64;

// Seconds of a step over n tokens: measured at some n, interpolated, then followed by a running average of real steps.
struct Costs {
    std::vector<int> points = {1, 2, 3, 5, 9, 17, 33, MAX_DRAFT + 1};
    std::vector<double> times;

    // `step(n)` runs the model over n tokens and returns the seconds that this took.
    template <typename Step>
    explicit Costs(Step step) {
        for (int n : points) {
            step(n); // left out: the first one allocates memory
            std::vector<double> runs;
            for (int k = 0; k < 5; k++) runs.push_back(step(n));
            std::nth_element(runs.begin(), runs.begin() + 2, runs.end());
            times.push_back(runs[2]);
        }
    }

    int after(int n) const { return std::lower_bound(points.begin() + 1, points.end() - 1, n) - points.begin(); }

    double share(int n) const { return double(n - points[after(n) - 1]) / (points[after(n)] - points[after(n) - 1]); }

    double time(int n) const { return times[after(n) - 1] * (1 - share(n)) + times[after(n)] * share(n); }

    void observe(int n, double seconds) {
        double change = 0.05 * (std::clamp(seconds / time(n), 0.67, 1.5) - 1);
        double part = share(n);
        times[after(n) - 1] *= 1 + change * (1 - part);
        times[after(n)] *= 1 + change * part;
    }

    // Cost of a step that verifies 0, 1, … drafted tokens, in plain steps; it does not fall.
    std::vector<double> curve() const {
        std::vector<double> found = {1};
        for (int k = 1; k <= MAX_DRAFT; k++) found.push_back(std::max(found.back(), time(k + 1) / time(1)));
        return found;
    }
};
