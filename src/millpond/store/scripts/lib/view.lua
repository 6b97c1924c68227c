-- view: how a lane and a flow stand, as they are told.

local function fields(key)
  local t, flat = {}, redis.call('HGETALL', key)
  for i = 1, #flat, 2 do t[flat[i]] = flat[i + 1] end
  return t
end

-- A lane's fields, and of each limit what is used and when it has room again; nil: it is not there.
local function lane_view(lane)
  local l = P .. 'l:' .. lane
  local view, windows = fields(l), {}
  if not view.org then return nil end
  local limits, known = limits_of(lane), known_of(lane)
  for i, limit in ipairs(limits) do
    local used = taken(lane, limit, known)
    windows[i] = {used = used, frees_at = frees_at(lane, limit, known, math.max(1, used - limit[1] + 1))}
  end
  view.flight = redis.call('ZCARD', l .. ':flight')
  view.share = share_of(lane, (shortest_of(limits)))
  return view, windows
end

-- Jobs in a flow's line: its places without the gaps that jobs have left.
local function in_line(flow)
  local f = P .. 'f:' .. flow
  return math.max(0, redis.call('LLEN', f .. ':q') - (tonumber(redis.call('HGET', f, 'gaps')) or 0))
end

-- A flow's fields, and how many of its jobs wait for what.
local function flow_view(flow)
  local f = P .. 'f:' .. flow
  local view = fields(f)
  view.common = nil
  view.queued = in_line(flow)
  view.parked = redis.call('ZCARD', f .. ':parked')
  view.parked_least = redis.call('ZRANGE', f .. ':parked', 0, 0, 'WITHSCORES')[2]
  view.later = redis.call('ZCARD', f .. ':later')
  view.later_at = redis.call('ZRANGE', f .. ':later', 0, 0, 'WITHSCORES')[2]
  return view
end

-- JSON of what is told, and lists beside it. (An empty list alone would be written as an object.)
local function written(told, lists)
  local text = cjson.encode(told)
  for name, list in pairs(lists) do
    text = '{"' .. name .. '":' .. (#list > 0 and cjson.encode(list) or '[]') .. ',' .. string.sub(text, 2)
  end
  return text
end
