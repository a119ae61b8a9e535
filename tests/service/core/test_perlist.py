"""What is made of a list is made once while it is remembered, and no more is remembered than is allowed."""

from service.core.perlist import FEW, PerList


def test_a_list_that_comes_again_is_not_made_anew_and_another_order_is_another_list():
    made = []
    lists = PerList(lambda each: made.append(each) or len(made))
    some = tuple("abcdefgh")
    assert [lists.of(some), lists.of(some[::-1]), lists.of(some)] == [1, 2, 1]
    assert made == [some, some[::-1]]


def test_lists_are_bounded_by_who_is_in_them():
    made = []
    lists = PerList(lambda each: made.append(each) or len(made), most=3 * FEW)
    for number in range(7):
        lists.of((number, *range(100, 99 + FEW)))
        assert sum(map(len, lists._made)) <= 3 * FEW
    assert lists.of((6, *range(100, 99 + FEW))) == len(made) == 7
    for apart in (tuple(range(3 * FEW + 1)), tuple(range(FEW - 1))):
        assert lists.of(apart) != lists.of(apart), "too long, or too short to be worth it: made each time"
