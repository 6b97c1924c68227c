-- turn: who is next, by start-time fair queuing.
--
-- A level is a zset of members by start tag: the classes of a lane, the users of a class, the flows of
-- a user. The lowest is next; who was served moves on by 1 / weight. Virtual time is the tag of who is
-- next. Who has nothing in line keeps its tag in `:idle` until virtual time has come to it, so that
-- going and coming back gains nothing. An empty level remembers nothing.
--
-- Who is new comes a little behind virtual time, so that it goes on however many are new, and in the
-- order of arrival.

local CLASS_WEIGHT = {i = 16, b = 1}
local BEHIND, BEHIND_EACH = 1 / 16, 1e-7

local function classes_level(lane) return P .. 'l:' .. lane .. ':c' end
local function users_level(lane, class) return P .. 'l:' .. lane .. ':u:' .. class end
local function flows_level(lane, class, user) return P .. 'l:' .. lane .. ':f:' .. class .. ':' .. user end

-- The lowest score: of a level, its virtual time.
local function lowest(level) return tonumber(redis.call('ZRANGE', level, 0, 0, 'WITHSCORES')[2]) end

-- Takes turns from now on: from where it stood, or so much behind virtual time.
local function join(level, member, behind, behind_each)
  if redis.call('ZSCORE', level, member) then return end
  local v, tag = lowest(level), 0
  if v then
    local stood = tonumber(redis.call('ZSCORE', level .. ':idle', member))
    tag = v + behind + redis.call('ZCARD', level) * behind_each
    if stood and stood > v then tag = stood end
    if stood then redis.call('ZREM', level .. ':idle', member) end
  end
  redis.call('ZADD', level, tag, member)
end

-- Takes no turns until it joins again.
local function rest(level, member, tag)
  local idle = level .. ':idle'
  redis.call('ZREM', level, member)
  local v = lowest(level)
  if not v then
    redis.call('UNLINK', idle)
    return
  end
  if tag > v then redis.call('ZADD', idle, tag, member) end
  local passed = redis.call('ZRANGE', idle, '-inf', v, 'BYSCORE', 'LIMIT', 0, 4)   -- they are as good as new
  if #passed > 0 then redis.call('ZREM', idle, unpack(passed)) end
end

-- A flow takes turns again, and so do its user and its class. (A class that comes is next.)
local function step_in(lane, class, user, flow)
  join(flows_level(lane, class, user), flow, BEHIND, BEHIND_EACH)
  join(users_level(lane, class), user, BEHIND, BEHIND_EACH)
  join(classes_level(lane), class, 0, 0)
end

-- A flow takes no more turns, and neither do its user and its class if it was the last one. It may have been
-- what the lane waits for.
local function step_out(lane, class, user, flow)
  local c, u, f = classes_level(lane), users_level(lane, class), flows_level(lane, class, user)
  redis.call('ZREM', P .. 'due', lane)
  wake(lane)
  for _, at in ipairs({{f, flow}, {u, user}, {c, class}}) do
    local tag = tonumber(redis.call('ZSCORE', at[1], at[2]))
    if tag then rest(at[1], at[2], tag) end
    if redis.call('EXISTS', at[1]) == 1 then return end
  end
end
