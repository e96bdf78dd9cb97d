package shop.limits

most := 100
