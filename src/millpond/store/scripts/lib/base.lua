-- base: what every script begins with. The loader puts it behind the script's first line.
--
-- KEYS  1 prefix     of the partition; every other key is built from it
-- ARGV  1 seen       logical time in the caller's last reply, 0 if it has none
--       2 quiet_ms   caller's monotonic time since that reply came
--       3 test_ms    stands for TIME where the field `test` of `m` allows it, else ignored
--       4 ...        the script's own, in `arg`
--
-- Replies  {now, life, word, ...}; {now, life, 'layout', found} where the data is another layout's

local LAYOUT = '2'
local P, M = KEYS[1], KEYS[1] .. 'm'
local arg = {}   -- not by unpack: that fails beyond 8,000
for i = 4, #ARGV do arg[i - 3] = ARGV[i] end

local found, life, raw, now, lease_now, test =
  unpack(redis.call('HMGET', M, 'layout', 'life', 'raw', 'now', 'lease_now', 'test'))
life, raw, now, lease_now = tonumber(life) or 0, tonumber(raw), tonumber(now) or 0, tonumber(lease_now) or 0

local time = tonumber(ARGV[3])
if not test then
  local t = redis.call('TIME')
  time = t[1] * 1000 + math.floor(t[2] / 1000)
end

local function reply(...) return {now, life, ...} end

if found and found ~= LAYOUT then return reply('layout', found) end

-- The logical clock. Small steps of TIME are believed; of a large one (a stepped clock, a
-- server that stood still) only as much as the caller's own monotonic clock vouches for.
local function move_clock(to)
  local passed = math.max(0, to - now)
  if passed == 0 and time == raw then return end
  now, lease_now = now + passed, lease_now + math.min(passed, 250)
  redis.call('HSET', M, 'raw', time, 'now', now, 'lease_now', lease_now)
end

local small = raw and time - raw >= 0 and time - raw <= 250
local vouched = ARGV[2] ~= 'hello' and ARGV[1] + math.floor(ARGV[2]) or 0
if not raw then
  redis.call('HSET', M, 'layout', LAYOUT)
  move_clock(time)
elseif small then
  move_clock(math.max(now + time - raw, vouched))
elseif ARGV[2] ~= 'hello' then
  move_clock(vouched)
end

-- Wake the scheduler: it looks at `due` and `soon`.
local function ring()
  if redis.call('LLEN', P .. 'bell:s') == 0 then redis.call('LPUSH', P .. 'bell:s', 1) end
end

-- A lane that stands in neither `turn` nor `due` is looked at again.
local function wake(lane)
  if redis.call('ZSCORE', P .. 'turn', lane) or redis.call('ZSCORE', P .. 'due', lane) then return end
  redis.call('ZADD', P .. 'due', now, lane)
  ring()
end

-- The flow's later and parked jobs are looked at by `promote` at `at`, or earlier.
local function look_again(flow, at)
  redis.call('ZADD', P .. 'soon', 'LT', at, flow)
  if at <= now then ring() end
end

-- The parts of a list with commas.
local function each(list) return string.gmatch(list, '[^,]+') end

-- After a restart of the server: has every worker that may hold a call told so?
local function all_reported()
  if tonumber(redis.call('HGET', M, 'heard')) == life then return true end
  for _, w in ipairs(redis.call('ZRANGE', P .. 'workers', string.format('%d', lease_now), '+inf', 'BYSCORE')) do
    if tonumber(redis.call('HGET', P .. 'w:' .. w, 'life')) ~= life then return false end
  end
  redis.call('HSET', M, 'heard', life)
  return true
end

-- A slot of the pool is free: the lanes that waited longest for one take turns again.
local slot_was_free = {}
local function slot_frees(pool)
  if slot_was_free[pool] then return end
  slot_was_free[pool] = true
  local waiting = redis.call('ZPOPMIN', P .. 'full:' .. pool, 2)
  for i = 1, #waiting, 2 do wake(waiting[i]) end
end
