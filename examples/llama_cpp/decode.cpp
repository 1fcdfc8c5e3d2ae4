// Greedy decoding with llama.cpp's library, plain and with tasc's drafts: the same texts, and the time of each.
//
//     decode MODEL.gguf INDEX.tasc TEMPLATE INPUTS [MAX_TOKENS]
//
// TEMPLATE is a file with the prompt, in which {input} stands for the input. INPUTS is a file with one input per line.
#include <llama.h>
#include <tasc.h>

#include "step_costs.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

using Ids = std::vector<llama_token>;

constexpr int CONTEXT = 2048;

[[noreturn]] static void fail(const std::string & message) {
    std::fprintf(stderr, "%s\n", message.c_str());
    std::exit(1);
}

static void check(tasc_status status) {
    if (status != TASC_OK) fail(tasc_last_error());
}

// Processor time of all threads, so that other programs do not count.
static double seconds() { return double(std::clock()) / CLOCKS_PER_SEC; }

// A model with the context of one sequence.
struct Model {
    llama_model * model;
    llama_context * context;
    const llama_vocab * vocab;
    llama_batch batch = llama_batch_init(CONTEXT, 0, 1);

    explicit Model(const char * path) {
        llama_log_set([](ggml_log_level, const char *, void *) {}, nullptr);
        model = llama_model_load_from_file(path, llama_model_default_params());
        if (!model) fail(std::string("cannot load ") + path);
        llama_context_params options = llama_context_default_params();
        options.n_ctx = options.n_batch = CONTEXT;
        options.n_threads = options.n_threads_batch = 1;
        context = llama_init_from_model(model, options);
        if (!context) fail("cannot make a context");
        vocab = llama_model_get_vocab(model);
    }

    Ids tokenize(const std::string & text) const {
        Ids ids(text.size() + 8);
        ids.resize(std::max(0, llama_tokenize(vocab, text.data(), text.size(), ids.data(), ids.size(), true, true)));
        return ids;
    }

    // Forgets the tokens from a position on.
    void truncate(int length) { llama_memory_seq_rm(llama_get_memory(context), 0, length, -1); }

    // Runs the model over `ids` at position `past`; logits are computed from the `from`-th of them on.
    void run(int past, const Ids & ids, int from) {
        if (past + int(ids.size()) > CONTEXT) fail("prompt and output do not fit the context");
        batch.n_tokens = ids.size();
        for (int k = 0; k < batch.n_tokens; k++) {
            batch.token[k] = ids[k];
            batch.pos[k] = past + k;
            batch.n_seq_id[k] = 1;
            batch.seq_id[k][0] = 0;
            batch.logits[k] = k >= from;
        }
        if (llama_decode(context, batch) != 0) fail("llama_decode failed");
    }

    // The likeliest token after the k-th of the last run.
    llama_token best(int k) const {
        const float * logits = llama_get_logits_ith(context, k);
        return std::max_element(logits, logits + llama_vocab_n_tokens(vocab)) - logits;
    }
};

struct Output {
    Ids ids;
    size_t steps;
    double all, prefill; // seconds, and those of the first step, which processes the prompt
};

// Decodes greedily; `drafter` may be null. A drafted token counts only where the model itself would have emitted it.
static Output decode(Model & model, const Ids & prompt, const std::string & input, int max_tokens, tasc_drafter * drafter,
                     Costs & costs) {
    Output output = {};
    Ids unseen = prompt; // tokens that the model has not been run over
    int past = 0;
    double begin = seconds();
    tasc_request * request = nullptr;
    if (drafter) {
        std::vector<uint32_t> ids(prompt.begin(), prompt.end());
        check(tasc_start(drafter, ids.data(), ids.size(), input.data(), input.size(), &request));
    }
    for (bool ended = false; !ended && int(output.ids.size()) < max_tokens; output.steps++) {
        double step = seconds();
        uint32_t draft[MAX_DRAFT];
        size_t drafted = 0, left = max_tokens - output.ids.size() - 1;
        if (request) {
            std::vector<double> curve = costs.curve();
            check(tasc_draft(request, std::min<size_t>(MAX_DRAFT, left), curve.data(), curve.size(), draft, nullptr, &drafted));
        }
        int last = unseen.size() - 1;
        Ids ids = unseen;
        ids.insert(ids.end(), draft, draft + drafted);
        model.run(past, ids, last);
        std::vector<uint32_t> emitted;
        for (size_t k = 0; k <= drafted && !ended; k++) {
            emitted.push_back(model.best(last + k));
            ended = llama_vocab_is_eog(model.vocab, emitted.back());
            if (k < drafted && emitted.back() != draft[k]) break;
        }
        past += last + emitted.size();
        model.truncate(past);
        if (request) check(tasc_update(request, emitted.data(), emitted.size()));
        if (output.steps > 0) costs.observe(ids.size(), seconds() - step);
        output.ids.insert(output.ids.end(), emitted.begin(), emitted.end());
        unseen = {output.ids.back()};
        if (output.steps == 0) output.prefill = seconds() - begin;
    }
    check(tasc_finish(request, 0)); // 1: later requests use this output; 0 here, so that the inputs are independent
    output.all = seconds() - begin;
    model.truncate(0);
    return output;
}

int main(int argc, char ** argv) {
    if (argc < 5) fail("usage: decode MODEL.gguf INDEX.tasc TEMPLATE INPUTS [MAX_TOKENS]");
    Model model(argv[1]);
    tasc_options options = {};
    options.size = sizeof options;
    options.vocab_size = llama_vocab_n_tokens(model.vocab);
    tasc_drafter * drafter;
    check(tasc_open(argv[2], &options, &drafter));
    std::ifstream file(argv[3]), inputs(argv[4]);
    std::string prompt((std::istreambuf_iterator<char>(file)), {}), input;
    size_t place = prompt.find("{input}");
    if (place == std::string::npos || !inputs) fail("TEMPLATE must contain {input}, and INPUTS must be a file");
    const int max_tokens = argc > 5 ? std::atoi(argv[5]) : 512;

    Costs costs([&](int n) {
        double begin = seconds();
        model.run(0, Ids(n, 1), 0);
        double time = seconds() - begin;
        model.truncate(0);
        return time;
    });
    std::printf("a step over 1, 2, 3, 5, 9, 17, 33, %d tokens takes", MAX_DRAFT + 1);
    for (double time : costs.times) std::printf(" %.1f", 1000 * time);
    std::printf(" ms\n");
    size_t count = 0, equal = 0, tokens[2] = {}, steps[2] = {};
    double all[2] = {}, prefill = 0;
    while (std::getline(inputs, input)) {
        Ids ids = model.tokenize(std::string(prompt).replace(place, 7, input));
        Output outputs[2];
        for (int drafts : {0, 1}) {
            Output & output = outputs[drafts] = decode(model, ids, input, max_tokens, drafts ? drafter : nullptr, costs);
            tokens[drafts] += output.ids.size();
            steps[drafts] += output.steps;
            all[drafts] += output.all;
        }
        prefill += outputs[0].prefill;
        count++;
        equal += outputs[0].ids == outputs[1].ids;
    }
    // "Behind the first token": the time beyond that in which plain decoding processes the prompts.
    double whole[2], behind[2];
    for (int drafts : {0, 1}) {
        whole[drafts] = tokens[drafts] / all[drafts];
        behind[drafts] = (tokens[drafts] - count) / (all[drafts] - prefill);
        std::printf("%-5s %zu tokens in %zu steps, %.1f tokens/s, behind the first token %.1f tokens/s\n",
                    drafts ? "tasc" : "plain", tokens[drafts], steps[drafts], whole[drafts], behind[drafts]);
    }
    std::printf("%zu of %zu outputs equal; %.2f times as fast, behind the first token %.2f times\n", equal, count,
                whole[1] / whole[0], behind[1] / behind[0]);
    check(tasc_close(drafter));
    llama_batch_free(model.batch);
    llama_free(model.context);
    llama_model_free(model.model);
    return equal == count ? 0 : 1;
}
