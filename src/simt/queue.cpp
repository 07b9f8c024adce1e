#include "simt/queue.h"

#include <algorithm>
#include <optional>
#include <unordered_set>
#include <utility>

#include "simt/sanitizer.h"
#include "simt/tsan_fibers.h"

namespace cuvae::simt {
namespace {

bool overlap(const void* a, std::size_t a_bytes, const void* b, std::size_t b_bytes) {
  const auto x = reinterpret_cast<std::uintptr_t>(a);
  const auto y = reinterpret_cast<std::uintptr_t>(b);
  return a != nullptr && b != nullptr && x < y + b_bytes && y < x + a_bytes;
}

bool may_begin(const Operation& operation) {
  return std::all_of(operation.after.begin(), operation.after.end(),
                     [](const OperationPtr& other) { return other->done; });
}

std::unordered_set<const Operation*> needed_for(const Operation& target) {
  std::unordered_set<const Operation*> needed;
  std::vector<const Operation*> open{&target};
  while (!open.empty()) {
    const Operation* operation = open.back();
    open.pop_back();
    if (operation->done || !needed.insert(operation).second) continue;
    for (const OperationPtr& before : operation->after) open.push_back(before.get());
  }
  return needed;
}

// The operation's own thread, as ThreadSanitizer sees it, for as long as this lives: it comes after
// `before`, as far as that is done.
class InThreadOf {
 public:
  InThreadOf(const Operation& operation, const std::vector<OperationPtr>& before) {
    if (with_tsan) {
      host_ = this_tsan_fiber();
      switch_tsan_fiber(operation.tsan);
    }
    quiet_.emplace();
    for (const OperationPtr& other : before)
      if (other->done) order_me_after(&other->order);
  }
  explicit InThreadOf(const Operation& operation) : InThreadOf(operation, operation.after) {}
  ~InThreadOf() {
    quiet_.reset();
    if (with_tsan) switch_tsan_fiber(host_);
  }
  InThreadOf(const InThreadOf&) = delete;
  InThreadOf& operator=(const InThreadOf&) = delete;

 private:
  void* host_ = nullptr;
  std::optional<Quiet> quiet_;
};

}  // namespace

Operation::~Operation() {
  const Quiet quiet;  // kernels read their arguments there
  launch.reset();
}

Queue::Queue(StreamOrder order, bool programmatic_early, bool check_writes, std::uint64_t seed,
             DeviceMemory& memory, Scheduler& scheduler)
    : order_(order),
      programmatic_early_(programmatic_early),
      check_writes_(check_writes),
      dice_(seed),
      memory_(memory),
      scheduler_(scheduler) {
  if (late()) priorities_ = dice_.coin();
  if constexpr (with_tsan) host_past_.add_all_before(next_serial());  // other runtimes' are others
}

Queue::~Queue() {
  drop_all();
}

OperationPtr Queue::put(std::shared_ptr<const Work> work, std::vector<OperationPtr> after,
                        bool programmatic) {
  auto operation = std::make_shared<Operation>();
  operation->work = std::move(work);
  for (OperationPtr& before : after)
    if (before) operation->after.push_back(std::move(before));
  operation->programmatic = programmatic;
  if (priorities_) operation->priority = dice_.next();
  if constexpr (with_tsan) {
    operation->serial = next_serial();
    operation->past = host_past_;
    for (const OperationPtr& before : operation->after) {
      operation->past.add(before->past);
      operation->past.add(before->serial);
    }
    order_after_me(&operation->put_order);
    operation->tsan = TsanFibers::take(&operation->put_order, host_past_);
  }
  pending_.push_back(operation);
  return operation;
}

void Queue::after_put() {
  if (order_ != StreamOrder::immediate) return;
  const Quiet quiet;
  while (OperationPtr operation = next(nullptr)) run(*operation);
}

void Queue::wait(const Operation* target) {
  const Quiet quiet;
  if (target == nullptr) {
    while (const OperationPtr operation = next(nullptr)) run(*operation);
    order_me_after(&all_order_);
    if constexpr (with_tsan) host_past_.add_all_before(next_serial());
    return;
  }
  // Either nothing but what must happen, or what else may.
  const bool only_needed = order_ == StreamOrder::immediate || dice_.coin();
  while (!target->done) {
    const OperationPtr operation = next(only_needed ? target : nullptr);
    if (!operation) break;
    run(*operation);
  }
  order_me_after(const_cast<char*>(&target->order));
  if constexpr (with_tsan) {
    host_past_.add(target->past);
    host_past_.add(target->serial);
  }
}

OperationPtr Queue::next(const Operation* target) {
  std::vector<std::size_t> choice;
  std::unordered_set<const Operation*> needed;
  if (target != nullptr) needed = needed_for(*target);
  for (std::size_t i = 0; i < pending_.size(); ++i) {
    if (target != nullptr && !needed.contains(pending_[i].get())) continue;
    if (!may_begin(*pending_[i])) continue;
    choice.push_back(i);
    if (order_ == StreamOrder::immediate) break;
  }
  if (choice.empty()) return nullptr;
  const std::size_t chosen =
      priorities_ ? *std::ranges::max_element(choice, {},
                                              [&](std::size_t i) { return pending_[i]->priority; })
                  : choice[dice_.below(choice.size())];
  const auto at = pending_.begin() + static_cast<std::ptrdiff_t>(chosen);
  OperationPtr operation = std::move(*at);
  pending_.erase(at);
  return operation;
}

bool Queue::uses(const void* memory, std::size_t bytes) const {
  return std::any_of(pending_.begin(), pending_.end(), [&](const OperationPtr& operation) {
    const Work& work = *operation->work;
    return overlap(work.from, work.bytes, memory, bytes) ||
           overlap(work.to, work.bytes, memory, bytes);
  });
}

void Queue::run(Operation& operation) {
  const Work& work = *operation.work;
  switch (work.kind) {
    case WorkKind::kernel: run_kernel(operation); break;
    case WorkKind::copy: {
      const InThreadOf thread(operation);
      if (work.staged.empty()) {
        const Loud host_and_device;
        memory_.copy(work.to, work.from, work.bytes);
      } else {
        const Loud host_and_device;
        note_write(work.to, work.bytes);
        const Quiet quiet;
        memory_.copy(work.to, work.staged.data(), work.bytes);
      }
      ended_here(operation);
      break;
    }
    case WorkKind::fill: {
      const InThreadOf thread(operation);
      const Loud device;
      memory_.fill(work.to, work.value, work.bytes);
      ended_here(operation);
      break;
    }
    case WorkKind::record: {
      const InThreadOf thread(operation);
      work.time->at = std::chrono::steady_clock::now();
      ended_here(operation);
      break;
    }
    case WorkKind::nothing: {
      const InThreadOf thread(operation);
      ended_here(operation);
      break;
    }
  }
  end(operation);
  if (!scheduler_.finding().empty()) {
    finding_ = scheduler_.take_finding();
    drop_all();
  }
}

// In the operation's own thread: what waits for it, or for all, comes after.
void Queue::ended_here(Operation& operation) {
  order_after_me(&operation.order);
  order_after_me(&all_order_);
}

void Queue::end(Operation& operation) {
  operation.done = true;
  operation.after.clear();
  TsanFibers::give_back(std::exchange(operation.tsan, nullptr), operation.serial);
}

void Queue::drop_all() {
  for (const OperationPtr& operation : pending_) {
    if (operation->begun) {
      scheduler_.abandon();
      scheduler_.finish(*operation->launch);
    }
    end(*operation);
  }
  pending_.clear();
}

// The kernel that may begin before this one has ended.
Operation* Queue::dependent_of(const Operation& operation) const {
  if (!programmatic_early_) return nullptr;
  for (const OperationPtr& other : pending_)
    if (other->programmatic && !other->begun && other->after.size() == 1 &&
        other->after[0].get() == &operation)
      return other.get();
  return nullptr;
}

void Queue::prepare(Operation& operation) {
  const Work& work = *operation.work;
  auto launch = std::make_unique<Launch>();
  launch->kernel = work.kernel;
  launch->grid = work.shape.grid;
  launch->block = work.shape.block;
  launch->shared_bytes = work.shape.shared_bytes;
  launch->cooperative = work.shape.cooperative;
  launch->programmatic = work.shape.programmatic;
  launch->most_resident = work.most_resident;
  launch->argument_bytes = work.argument_bytes;
  for (const std::size_t offset : work.argument_offsets)
    launch->arguments.push_back(launch->argument_bytes.data() + offset);
  launch->serial = operation.serial;
  launch->past = &operation.past;
  operation.launch = std::move(launch);
}

void Queue::open_memory(const Work& work, bool early_only) {
  if (work.says_accesses) {
    memory_.open(work.accesses, early_only);
  } else {
    memory_.open_all();
  }
}

// A kernel that is launched programmatically after this one begins first: everything that it does
// before its wait happens before anything that this one does (after its own wait, if it has begun
// in the same way).
void Queue::run_kernel(Operation& operation) {
  if (!operation.launch) prepare(operation);
  if (Operation* dependent = dependent_of(operation)) {
    prepare(*dependent);
    dependent->launch->producers_done = false;
    dependent->launch->producer_order = &operation.launch->done_order;
    dependent->launch->past = &operation.past;
    dependent->begun = true;
    // It comes after what this one comes after.
    const InThreadOf thread(*dependent, operation.after);
    open_memory(*dependent->work, true);
    scheduler_.start(*dependent->launch);
    scheduler_.run();
    memory_.close();
  }
  const InThreadOf thread(operation);
  const Work& work = *operation.work;
  std::vector<DeviceMemory::Piece> unwritten;
  if (check_writes_ && work.says_accesses) unwritten = memory_.unwritten(work.accesses);
  if (scheduler_.finding().empty()) {
    open_memory(work, false);
    if (operation.begun) {
      scheduler_.release(*operation.launch);
    } else {
      scheduler_.start(*operation.launch);
    }
    scheduler_.run();
    memory_.close();
  }
  scheduler_.finish(*operation.launch);
  order_me_after(&operation.launch->done_order);
  ended_here(operation);
  const std::string kernel = "; kernel " + std::string(work.kernel->name);
  if (const auto where = memory_.find_overrun())
    scheduler_.report("a write beside device memory, " + *where + kernel);
  if (const auto where = memory_.find_change(unwritten))
    scheduler_.report("a write that the launch did not say, " + *where + kernel);
}

}  // namespace cuvae::simt
